"""How fast Prototypical Networks train on episodes, beside supervised training of the same network.

    python benchmarks/episodic_speed.py [--rounds 30] [--threads 1] [--device cpu] [--precision auto]

Synthetic pictures in memory-mapped shards, as an image store has them, and for each backbone four steps, which take
turns in one run, so that a busy machine slows all alike:

- *episodes*: meta-training as :mod:`meta_dx.training.episodic` does it, with drawing, augmentation and AdamW;
- *plain loop*: shuffled batches of as many images, the same augmentation, cross-entropy, ``backward``, AdamW, written
  out here with torch alone;
- *pre-training*: the project's own (:mod:`meta_dx.training.pretraining`), with MixUp off;
- *drawing*: only the plans of the episodes, reading the pictures, and gathering embeddings into episodes.

A ratio is the median over the rounds of time by time (beside it the quartiles), once by the clock and once by the
processor time of this process, which others disturb less. Steps are made twice, and timed the second time: batches of
episodes are of many sizes, and a kernel is made for each, which in a training of a thousand steps is soon done.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from meta_dx.backbones.encoder import Encoder, build_encoder
from meta_dx.backbones.options import BackboneOptions
from meta_dx.cohort.examples import Examples
from meta_dx.cohort.images import ShardedImages
from meta_dx.episodes.collate import episode_images
from meta_dx.learners.registry import build_head
from meta_dx.training.augmentation import augment
from meta_dx.training.determinism import deterministic, seeded
from meta_dx.training.embedding import Pictures, memory_format
from meta_dx.training.episodic import _Episodes, episode_sampler
from meta_dx.training.optimizing import shortened
from meta_dx.training.options import TrainingOptions
from meta_dx.training.pretraining import _Classification
from meta_dx.training.shards import Shard, ShardGradients
from meta_dx.training.task import TrainingTask, open_fabric

DISEASES, PATIENTS, IMAGES_A_STUDY, SHARDS = 80, 30, 2, 4
RATE, DECAY, LONGEST = 1e-4, 0.05, 5.0
#: From a step's number to the images in it.
Step = Callable[[int], int]


@dataclass(frozen=True)
class Setting:
    """A network, its pictures (C, H, W), and its options."""

    backbone: Literal["conv4", "resnet10"]
    shape: tuple[int, int, int]
    options: TrainingOptions


SETTINGS = (
    Setting("conv4", (1, 28, 28), TrainingOptions(mixup=0.0)),
    Setting(  # as Snell 2017 trains on Omniglot
        "conv4", (1, 28, 28), TrainingOptions(mixup=0.0, ways=(60, 60), shots=(1, 1), queries=5)
    ),
    Setting("conv4", (1, 64, 64), TrainingOptions(mixup=0.0)),
    Setting(  # as examples/derm.toml
        "resnet10",
        (3, 84, 84),
        TrainingOptions(mixup=0.0, flip="both", rotate=180.0, zoom=0.2, gain=0.2, ways=(10, 20)),
    ),
)


def main(arguments: list[str]) -> None:
    """Print a table for each setting."""
    asked = parser().parse_args(arguments)
    arithmetic = "as the device has it" if asked.precision == "auto" else asked.precision
    say(
        f"torch {torch.__version__}, {asked.device}, {asked.threads} thread(s), {asked.rounds} rounds, {arithmetic}"
    )
    for setting in SETTINGS:
        options = replace(setting.options, threads=asked.threads, precision=asked.precision)
        with tempfile.TemporaryDirectory() as folder:
            measure(cohort(Path(folder), replace(setting, options=options), asked.device), asked.rounds)


def measure(task: TrainingTask, rounds: int) -> None:
    """Let all take turns, and print images a second and ratios."""
    sampler = episode_sampler(task)
    counts = [len(sampler.plan(step).rows) for step in range(rounds)]
    steps = contenders(task, counts)
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in steps}  # of an image: clock, processor
    names = list(steps)
    for turn in range(2 * rounds):
        for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
            began = now(task)
            done = steps[name](turn % rounds)
            if turn >= rounds:  # before, kernels are made for each size of batch
                seconds[name].append((now(task) - began) / done)
    size = " x ".join(map(str, task.images.shape[1:]))
    say(f"\n{task.backbone.name}, {size}, {statistics.mean(counts):.0f} images a step")
    say("| | images a second | by processor time | its time by the episodes' | by processor time |")
    say("|---|---|---|---|---|")
    for name, each in seconds.items():
        clock, busy = 1 / np.median(each, axis=0)
        ratios = np.array(each) / np.array(seconds["episodes"])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75], axis=0)
        between = [f"{m:.3f} ({a:.3f} to {b:.3f})" for a, m, b in zip(low, middle, high, strict=True)]
        say(f"| {name} | {clock:.0f} | {busy:.0f} | {between[0]} | {between[1]} |")


def now(task: TrainingTask) -> np.ndarray:
    """Return clock and processor time, when the device has done what it was given."""
    if task.device == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def contenders(task: TrainingTask, counts: Sequence[int]) -> dict[str, Step]:
    """Return all steps by name; each has weights of its own, and starts from the same ones."""
    task = replace(task, options=replace(task.options, batch_size=round(statistics.mean(counts))))
    fabric = open_fabric(task)
    pictures = Pictures(task.images, fabric.device)
    trained, second = new_encoder(task, fabric), new_encoder(task, fabric)
    with seeded(0):
        head = build_head("prototypical", trained.embedding_size).to(fabric.device)
        last = nn.Linear(second.embedding_size, len(task.common.diseases)).to(fabric.device)
    episodes = _Episodes(task, fabric, trained, head)
    supervised = _Classification(task, fabric, second, last, pictures)
    return {
        "episodes": applied(episodes.gradients, {"encoder": trained, "head": head}, counts),
        "plain loop": plain_loop(task, fabric, pictures, counts),
        "pre-training": applied(
            supervised.gradients,
            {"encoder": second, "classifier": last},
            [task.options.batch_size] * len(counts),
        ),
        "drawing": drawing(task, pictures, trained.embedding_size),
    }


def applied(gradients: ShardGradients, modules: dict[str, nn.Module], counts: Sequence[int]) -> Step:
    """Return steps of a stage's objective, its gradients shortened and applied as a stage does."""
    parameters = {f"{m}.{name}": p for m, module in modules.items() for name, p in module.named_parameters()}
    optimizer = torch.optim.AdamW(parameters.values(), RATE, weight_decay=DECAY, fused=True)

    def step(number: int) -> int:
        with deterministic():
            found, metrics = gradients(Shard(number))
            found = shortened(found)
            for name, parameter in parameters.items():
                parameter.grad = found[name]
            optimizer.step()
            float(metrics["loss"])
        return counts[number]

    return step


def plain_loop(task: TrainingTask, fabric: Fabric, pictures: Pictures, counts: Sequence[int]) -> Step:
    """Return the loop that one would write by hand, on batches of as many images as the episodes have."""
    network = nn.Sequential(encoder := new_encoder(task, fabric), nn.LazyLinear(len(task.common.diseases)))
    network.to(fabric.device).train()
    layout = memory_format(encoder)
    generator = torch.Generator(fabric.device).manual_seed(0)
    network(pictures.take(np.arange(2)).contiguous(memory_format=layout))
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY, fused=True)
    rows = np.concatenate(task.common.images)
    _, label = np.unique(np.repeat(task.common.code, IMAGES_A_STUDY), return_inverse=True)
    random = np.random.default_rng(0)

    def step(number: int) -> int:
        chosen = random.permutation(len(rows))[: counts[number]]
        images = augment(pictures.take(rows[chosen]), task.options, generator)
        target = torch.from_numpy(label[chosen]).to(fabric.device)
        with fabric.autocast():
            logits = network(images.contiguous(memory_format=layout))
        loss = nn.functional.cross_entropy(logits.float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), LONGEST)
        optimizer.step()
        float(loss.detach())
        return len(chosen)

    return step


def drawing(task: TrainingTask, pictures: Pictures, size: int) -> Step:
    """Return all of an episodic step but augmentation, network and loss."""
    sampler, number_of = episode_sampler(task), task.options.episodes_per_step

    def step(number: int) -> int:
        plans = list(sampler.plans(number_of, number * number_of))
        batch = episode_images(plans, task.common, per_example=1, seed=task.seed)
        pictures.take(batch.images)
        batch.episode(torch.empty(len(batch.images), size, device=pictures.device))
        return len(batch.images)

    return step


def new_encoder(task: TrainingTask, fabric: Fabric) -> Encoder:
    """Build the network, the same each time."""
    with seeded(0):
        encoder = build_encoder(task.backbone, task.channels)
    placed: Encoder = encoder.to(fabric.device, memory_format=memory_format(encoder))  # type: ignore[call-overload]
    return placed


def cohort(folder: Path, setting: Setting, device: str) -> TrainingTask:
    """Write noise for pictures, and make a task of them; the last ten diseases are for validation."""
    random = np.random.default_rng(0)
    studies = DISEASES * PATIENTS
    shards = []
    for shard in range(SHARDS):
        path = folder / f"{shard}.npy"
        count = studies * IMAGES_A_STUDY // SHARDS
        np.save(path, random.integers(0, 256, (count, *setting.shape), dtype=np.uint8))
        shards.append(np.load(path, mmap_mode="r"))
    place = np.arange(studies * IMAGES_A_STUDY)
    names = np.array([f"1.2.826.0.1.3680043.8.498.{i:024d}" for i in range(studies)])
    codes = np.array([f"D{i // PATIENTS:02d}" for i in range(studies)])
    examples = Examples(names, names, codes, tuple(place.reshape(studies, IMAGES_A_STUDY)))
    common = np.arange(studies) < (DISEASES - 10) * PATIENTS
    return TrainingTask(
        common=examples.take(common),
        validation=examples.take(~common),
        images=ShardedImages(
            shards, place * SHARDS // len(place), place % (len(place) // SHARDS), setting.shape
        ),
        folder=folder,
        backbone=BackboneOptions(setting.backbone),
        options=setting.options,
        device="cuda" if device == "cuda" else "cpu",
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--rounds", type=int, default=30)
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--device", default="cpu")
    found.add_argument("--precision", default="auto", choices=("auto", "32", "bf16"))
    return found


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
