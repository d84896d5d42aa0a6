"""How long the episodic evaluation of a bundle takes, and how much memory, on synthetic embeddings.

    python benchmarks/evaluation_speed.py [--episodes 1000] [--threads 1] [--profile]

1000 episodes at one shot and 1000 at five, 5-way, 10 queries a disease and as many from outside, over 90 diseases
with 1500 studies, 512 numbers an embedding: all heads that a bundle can hold and the shortcut baseline, through ONNX
Runtime, with all figures and intervals, as ``meta-dx evaluate`` has them computed. The heads are untrained, the work
is the same. Memory is the largest that a process of its own ever held, with 1, 2, 4 … times as many studies. Last, one
neural process adapts to 100 diseases with 20 cases each and answers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from meta_dx.cohort.examples import Examples
from meta_dx.cohort.preprocessing import ImageOptions
from meta_dx.evaluation.episodic import evaluate_episodes
from meta_dx.inference.bundle import Bundle, BundleParts, write_bundle
from meta_dx.inference.predictor import Predictor
from meta_dx.learners.registry import HEADS, build_head

SIZE, DISEASES, PATIENTS = 512, 90, (7, 26)
#: The quickest first, so that drawing the episodes, which its first batch waits for, is told apart.
HEADS_IN_ORDER = ("prototypical", *(name for name in HEADS if name != "prototypical"))
NAMES = {"prototypical": "drawing episodes, and prototypical"}
WAYS, QUERIES, SHOTS = 5, 10, (1, 5)
MANY_WAYS, MANY_SHOTS, MANY_QUERIES = 100, 20, (1, 100)
TIMES_STUDIES = (1, 2, 4, 16, 64)
MEMORY_EPISODES = 100


def main(arguments: list[str]) -> None:
    """Print the tables."""
    asked = parser().parse_args(arguments)
    if asked.alone:
        alone(Path(asked.alone), asked.threads, asked.times)
        return
    with tempfile.TemporaryDirectory() as folder:
        made = bundle(Path(folder))
        evaluation(made, asked.episodes, asked.threads, asked.profile)
        if not asked.quick:
            memory(made, asked.threads)


def evaluation(made: Bundle, episodes: int, threads: int, profiled: bool) -> None:
    """Print where the time goes, at each number of shots."""
    examples, vectors = cohort()
    say(f"{len(examples)} studies, {DISEASES} diseases, {episodes} episodes, {threads} thread(s)")
    total = np.zeros(2)
    for shots in SHOTS:
        clock = Clock()
        if profiled:
            import cProfile

            with cProfile.Profile() as found:
                evaluate(made, threads, examples, vectors, shots, episodes, clock)
            found.dump_stats(f"evaluation-{shots}-shot.prof")
        else:
            evaluate(made, threads, examples, vectors, shots, episodes, clock)
        say(f"| {WAYS}-way {shots}-shot | clock, s | processor, s |\n|---|---|---|")
        for name, spent in clock.spent.items():
            say(f"| {name} | {spent[0]:.2f} | {spent[1]:.2f} |")
        both = np.sum(list(clock.spent.values()), axis=0)
        say(f"| together | {both[0]:.2f} | {both[1]:.2f} |\n")
        total += both
    say(f"both: {total[0]:.1f} s by the clock, {total[1]:.1f} s of the processor\n")


class Clock:
    """Books the time since the last look under a name: by the clock, and of this process's processors."""

    def __init__(self) -> None:
        self.spent: dict[str, np.ndarray] = {}
        self._last = self._now()

    def book(self, name: str) -> None:
        """Add the time since the last call."""
        now = self._now()
        self.spent[name] = self.spent.get(name, np.zeros(2)) + now - self._last
        self._last = now

    @staticmethod
    def _now() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])


def evaluate(
    made: Bundle,
    threads: int,
    examples: Examples,
    vectors: np.ndarray,
    shots: int,
    episodes: int,
    clock: Clock,
) -> None:
    """Evaluate as ``meta-dx evaluate`` does, and book what each method took."""
    predictor = Predictor(made, device="cpu", threads=threads)
    shortcut = vectors[:, :64] / vectors[:, :64].std()
    clock.book("opening")

    def tell(done: int, total: int, message: str = "") -> None:
        clock.book(NAMES.get(message, message))

    evaluate_episodes(
        predictor,
        vectors,
        examples,
        ways=WAYS,
        shots=shots,
        queries=QUERIES,
        episodes=episodes,
        seed=0,
        heads=HEADS_IN_ORDER,
        extra={"shortcut": shortcut},
        progress=tell,
    )
    clock.book("figures and intervals")


def memory(made: Bundle, threads: int) -> None:
    """Print the peak memory at several numbers of studies, and what a large task costs a neural process."""
    say("| studies | peak, MB | embeddings, MB |\n|---|---|---|")
    for times in TIMES_STUDIES:
        found = in_own_process(made, threads, times)
        say(f"| {found['studies']} | {found['peak']:.0f} | {found['embeddings']:.0f} |")
    found = in_own_process(made, threads, 0)
    say(f"\nanp, {MANY_WAYS} diseases with {MANY_SHOTS} cases, {SIZE} numbers, {made.samples} samples:")
    say("| | clock, s | processor, s | peak beyond the start, MB |\n|---|---|---|---|")
    for name, row in found["rows"].items():
        say(f"| {name} | {row[0]:.2f} | {row[1]:.2f} | {row[2]:.0f} |")


def in_own_process(made: Bundle, threads: int, times: int) -> dict[str, Any]:
    """Run :func:`alone` in a process of its own, whose peak memory is its own."""
    asked = ["--alone", str(made.path), "--threads", str(threads), "--times", str(times)]
    done = subprocess.run([sys.executable, __file__, *asked], check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def alone(path: Path, threads: int, times: int) -> None:
    """Evaluate so many times the studies, or adapt to many classes where ``times`` is 0; print figures as JSON."""
    made = Bundle.load(path)
    if not times:
        say(json.dumps({"rows": many_classes(made, threads)}))
        return
    examples, vectors = cohort(times)
    for shots in SHOTS:
        evaluate(made, threads, examples, vectors, shots, MEMORY_EPISODES, Clock())
    found = {"studies": len(examples), "peak": peak(), "embeddings": vectors.nbytes / 1e6}
    say(json.dumps(found))


def many_classes(made: Bundle, threads: int) -> dict[str, list[float]]:
    """Adapt the neural process to many classes and answer."""
    predictor = Predictor(made, device="cpu", threads=threads)
    random = np.random.default_rng(1)
    centres = random.normal(size=(MANY_WAYS, SIZE))
    labels = np.repeat(np.arange(MANY_WAYS), MANY_SHOTS)
    few = slice(0, 2)
    predictor.answer(predictor.adapt(centres[few], [0, 1], 2, "anp"), centres[few])  # opens the sessions
    start, clock, rows = peak(), Clock(), {}

    def book(name: str) -> None:
        clock.book(name)
        rows[name] = [*clock.spent[name].tolist(), peak() - start]

    clock.book("opening")
    state = predictor.adapt(
        centres[labels] + random.normal(size=(len(labels), SIZE)), labels, MANY_WAYS, "anp"
    )
    book("adapt")
    for queries in MANY_QUERIES:
        x = centres[np.arange(queries) % MANY_WAYS] + random.normal(size=(queries, SIZE))
        clock.book("drawing")
        predictor.answer(state, x)
        book(f"answer, {queries} queries" if queries > 1 else "answer, 1 query")
    return rows


def peak() -> float:
    """Return the largest memory that this process ever held, MB (Linux)."""
    # getrusage would count what the parent held when it started this process.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) * 1024 / 1e6


def cohort(times: int = 1) -> tuple[Examples, np.ndarray]:
    """Draw studies of one patient each, and embeddings around a centre for each disease."""
    random = np.random.default_rng(0)
    counts = times * random.integers(PATIENTS[0], PATIENTS[1] + 1, DISEASES)
    of = np.repeat(np.arange(DISEASES), counts)
    n = len(of)
    names = np.array([f"1.2.826.0.1.3680043.8.498.{i:024d}" for i in range(n)])
    codes = np.array([f"D{d:02d}" for d in of])
    vectors = np.maximum(random.normal(size=(DISEASES, SIZE)), 0).astype(np.float32)[of]
    vectors += random.normal(size=(n, SIZE)).astype(np.float32)
    return Examples(names, names, codes, tuple(np.arange(n)[:, None])), vectors


class Flat(nn.Module):
    """An encoder that is there because a bundle has one."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(64, SIZE)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 8, 8) to (B, D)."""
        embeddings: Tensor = self.map(images.flatten(1).float())
        return embeddings


def bundle(folder: Path) -> Bundle:
    """Export every head."""
    mean = torch.full((SIZE,), 0.4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = {name: build_head(name, SIZE, base_mean=mean).eval() for name in HEADS}
        parts = BundleParts(Flat(), heads, "anp", ImageOptions(size=8), SIZE, base_mean=mean.numpy())
    return write_bundle(folder, parts)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--episodes", type=int, default=1000)
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--profile", action="store_true", help="write cProfile's files beside")
    found.add_argument("--quick", action="store_true", help="time only, no memory")
    found.add_argument("--alone", default="", help=argparse.SUPPRESS)
    found.add_argument("--times", type=int, default=1, help=argparse.SUPPRESS)
    return found


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
