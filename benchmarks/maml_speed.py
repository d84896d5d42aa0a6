"""How long one second-order MAML step takes, beside a plain loop and learn2learn's MAML.

    python benchmarks/maml_speed.py [--rounds 10] [--threads 1] [--device cpu] [--learn2learn CHECKOUT] [--profile]

Conv4-64 on 28 x 28 pictures, 5-way 1-shot, 75 queries, 8 tasks, 5 inner steps, batch statistics throughout. All take
turns in one run, so that a busy machine slows all alike; a ratio is the median over the rounds of time by time, once by
the clock and once by the processor time of this process, which others disturb less. The plain loop is written with
``torch.func.functional_call`` and ``autograd.grad`` over torch's own layers. Before anything is timed, all gradients
are compared in float64. learn2learn is no dependency: it joins where a checkout of it is given.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402 # after the path
from torch import Tensor, nn  # noqa: E402
from torch.func import functional_call  # noqa: E402

from benchmarks.reproduction.references import learn2learn_maml  # noqa: E402
from meta_dx.backbones.encoder import build_encoder  # noqa: E402
from meta_dx.backbones.options import BackboneOptions  # noqa: E402
from meta_dx.episodes.episode import Episode  # noqa: E402
from meta_dx.learners.base import Grads  # noqa: E402
from meta_dx.learners.body_options import MamlOptions  # noqa: E402
from meta_dx.learners.classifier import Classifier  # noqa: E402
from meta_dx.learners.maml import Maml  # noqa: E402

WAYS, QUERIES, TASKS, STEPS, RATE, SIDE = 5, 75, 8, 5, 0.1, 28
Step = Callable[[Episode], Grads]


def main(arguments: list[str]) -> None:
    """Print times and ratios."""
    asked = parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    contenders = steps_by_name(torch.device(asked.device), torch.float32, asked.learn2learn)
    say(f"torch {torch.__version__}, {asked.device}, {asked.threads} thread(s), {asked.rounds} rounds")
    check(torch.device(asked.device), asked.learn2learn)
    batch = episode(torch.device(asked.device), torch.float32)
    if asked.profile:
        from torch.profiler import profile

        contenders["ours"](batch)
        with profile() as found:
            contenders["ours"](batch)
        say(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=45))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    busy: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(asked.rounds + 1):
        for name, step in contenders.items():
            began, worked = time.perf_counter(), time.process_time()
            step(batch)
            if asked.device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
                busy[name].append(time.process_time() - worked)
    for kind, times in (("clock", seconds), ("processor", busy)):
        for name, each in times.items():
            pairs = [other / own for other, own in zip(each, times["ours"], strict=True)]
            say(
                f"{kind:<10}{name:<26} median {statistics.median(each):.3f} s, least {min(each):.3f} s; by ours:"
                f" {statistics.median(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f})"
            )


def steps_by_name(device: torch.device, dtype: torch.dtype, checkout: Path | None) -> dict[str, Step]:
    """Return everything that is compared: from an episode to the mean meta-gradient by the network's names."""
    found = {
        "ours": ours(network(device, dtype), vectorised=device.type == "cuda"),
        "plain autograd.grad loop": plain_loop(network(device, dtype)),
    }
    if device.type == "cuda":
        found["ours, task by task"] = ours(network(device, dtype), vectorised=False)
    if checkout is not None:
        found["learn2learn"] = learn2learn(network(device, dtype), checkout)
    return found


def ours(net: Classifier, vectorised: bool) -> Step:
    """Return the learner's step."""
    options = MamlOptions(inner_rate=RATE, steps=STEPS, batch_norm="batch")
    learner = Maml(net, options, vectorised=vectorised)
    parameters = {name.removeprefix("network."): p for name, p in learner.named_parameters()}
    return lambda batch: learner.meta_gradients(batch, parameters=parameters)[0]


def plain_loop(net: Classifier) -> Step:
    """Return the loop that one would write by hand."""
    parameters = dict(net.named_parameters())

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(net, weights, (x,)), y)

    def step(batch: Episode) -> Grads:
        total: list[Tensor] = [torch.zeros_like(p) for p in parameters.values()]
        for e in range(TASKS):
            weights: dict[str, Tensor] = dict(parameters)
            for _ in range(STEPS):
                inner = loss(weights, batch.support_x[e], batch.support_y[e])
                gradients = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
                weights = {n: w - RATE * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
            outer = loss(weights, batch.query_x[e], batch.query_y[e])
            found = torch.autograd.grad(outer, list(parameters.values()))
            total = [a + b for a, b in zip(total, found, strict=True)]
        return {n: t / TASKS for n, t in zip(parameters, total, strict=True)}

    return step


def learn2learn(net: Classifier, checkout: Path) -> Step:
    """Return the step of learn2learn's MAML."""
    maml = learn2learn_maml(checkout)(net, lr=RATE, first_order=False)

    def step(batch: Episode) -> Grads:
        maml.zero_grad()
        for e in range(TASKS):
            task = maml.clone()
            for _ in range(STEPS):
                task.adapt(nn.functional.cross_entropy(task(batch.support_x[e]), batch.support_y[e]))
            (nn.functional.cross_entropy(task(batch.query_x[e]), batch.query_y[e]) / TASKS).backward()
        return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

    return step


def check(device: torch.device, checkout: Path | None) -> None:
    """Compare all meta-gradients in float64."""
    batch = episode(device, torch.float64)
    found = {name: step(batch) for name, step in steps_by_name(device, torch.float64, checkout).items()}
    for name, gradients in found.items():
        size = max(float(g.abs().max()) for g in found["ours"].values())
        apart = max(float((gradients[n] - g).abs().max()) for n, g in found["ours"].items())
        say(f"{name:<28} largest difference from ours in float64, relative: {apart / size:.1e}")


def network(device: torch.device, dtype: torch.dtype) -> Classifier:
    """Build the network, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = build_encoder(BackboneOptions("conv4"), 1)
        return Classifier(encoder, encoder.embedding_size, WAYS).to(device, dtype).train()


def episode(device: torch.device, dtype: torch.dtype) -> Episode:
    """Draw tasks with noise for pictures: the time does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)

    def rows(count: int) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.randint(0, 256, (TASKS, count, 1, SIDE, SIDE), generator=generator).to(dtype)
        y = torch.arange(count).remainder(WAYS).repeat(TASKS, 1)
        return x, y, torch.ones(TASKS, count, dtype=torch.bool)

    return Episode(*rows(WAYS), *rows(QUERIES), torch.ones(TASKS, WAYS, dtype=torch.bool)).to(device)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--rounds", type=int, default=10)
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--device", default="cpu")
    found.add_argument("--learn2learn", type=Path, help="a checkout of learnables/learn2learn")
    found.add_argument("--profile", action="store_true", help="print where our time goes")
    return found


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
