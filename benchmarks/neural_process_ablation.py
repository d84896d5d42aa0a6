"""The neural process with and without its latent and its attention, on a cohort's validation diseases.

    export META_DX_DATA=/path/to/cohorts META_DX_HOME=HOME
    python benchmarks/neural_process_ablation.py examples/derm.toml --steps 400

The home holds a finished pre-training of the cohort file. Each form is trained from the same encoder, on the same
episodes, with the same plain head below it, keeps its best weights by its own rule, and answers the episodes of the
choice, which are others than those its weights were kept by. Printed: accuracy and paired difference from the plain
head with its interval over diseases, log loss as a share of that of guessing (few and many diseases), and of forms
with a latent the epistemic uncertainty in nats by number of confirmed cases, and for queries from outside. Rare
diseases play no part. Figures: docs/learners.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from meta_dx.cohort.examples import Examples
from meta_dx.episodes.collate import collate
from meta_dx.episodes.plan import EpisodePlan, EpisodeSampler, eligible_diseases
from meta_dx.evaluation.doubt import OutsideSampler
from meta_dx.learners.base import Head
from meta_dx.learners.registry import build_head
from meta_dx.metrics.classification import separation
from meta_dx.metrics.uncertainty import mutual_information
from meta_dx.steps import open_project
from meta_dx.steps.cohort import assemble
from meta_dx.steps.training import training_task
from meta_dx.training.frozen import build_on_embeddings, train_on_embeddings
from meta_dx.training.pretraining import pretrain
from meta_dx.training.stage import StageResult
from meta_dx.training.start import embedded, encoder_of, with_prior_head
from meta_dx.training.task import TrainingTask, step_seed
from meta_dx.training.validation import ValidationEpisodes

FORMS = {
    "attentive neural process": {},
    "without attention (NP)": {"attention": False},
    "without latent (attentive CNP)": {"latent": False},
    "without either (CNP)": {"attention": False, "latent": False},
}
SAMPLES, EPISODES = 64, 100
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bench:
    """What all forms are trained and measured on."""

    task: TrainingTask
    start: StageResult
    base_mean: torch.Tensor
    vectors: npt.NDArray[np.float32]
    episodes: ValidationEpisodes

    def trained(self, changes: dict[str, bool], steps: int, folder: Path) -> tuple[Head, StageResult]:
        """Train one form and return it with its best weights."""
        learner = replace(self.task.learner, anp=replace(self.task.learner.anp, **changes))  # type: ignore[arg-type] # flags
        options = replace(self.task.options, head_steps=steps)
        task = replace(self.task, learner=learner, options=options, folder=folder)
        stage = train_on_embeddings(task, "anp", self.start)
        head = build_on_embeddings("anp", self.vectors.shape[1], task, base_mean=self.base_mean)
        head.load_state_dict(stage.best["head"])
        if not isinstance(head, Head):
            raise TypeError("the neural process is a head")
        return head.eval(), stage


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    bench = opened(asked.cohort)
    plain_name = bench.task.learner.anp.prior_head
    plain = build_head(plain_name, bench.vectors.shape[1], base_mean=bench.base_mean).eval()
    below = bench.episodes.hits(plain, bench.vectors)
    checked = bench.episodes.check(plain, bench.vectors)
    say(f"plain head, {plain_name}: {checked.accuracy:.1%}, log loss {checked.log_loss:.3f} of guessing")
    for form, changes in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            head, stage = bench.trained(changes, asked.steps, Path(folder))
        found = bench.episodes.check(head, bench.vectors)
        gap, low, high = bench.episodes.difference(bench.episodes.hits(head, bench.vectors), below)
        say(
            f"{form}: {found.accuracy:.1%} ({100 * gap:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}), "
            f"log loss {found.log_loss:.3f}, weights of step {stage.best_step}"
        )
        if head.noise_size:
            doubt(head, bench.task.validation, bench.vectors, bench.task.seed)


def opened(cohort: Path) -> Bench:
    """Open home and cohort."""
    project = open_project(cohort)
    task = training_task(project, assemble(project))
    start = pretrain(task)
    learner = replace(task.learner, name="anp")
    task = with_prior_head(replace(task, learner=learner), start, project.home.features)
    common, validation = embedded(task, encoder_of(task, start), project.home.features)
    seed = step_seed(task.seed, "selected", 0)
    episodes = ValidationEpisodes(task.validation, task.options, seed, task.ancestors)
    return Bench(task, start, torch.from_numpy(common.mean(0)), validation, episodes)


def doubt(head: Head, examples: Examples, vectors: npt.NDArray[np.float32], seed: int) -> None:
    """Print the epistemic uncertainty by shots, and inside against outside at five."""
    for shots in (1, 5, 20):
        if len(eligible_diseases(examples, shots)[0]) < 5:
            say(f"    {shots} shots: too few patients")
            continue
        plans = list(EpisodeSampler(examples, 5, shots, 2, seed).plans(EPISODES))
        outside = OutsideSampler(examples, seed, None)
        inside, beyond = epistemic(head, plans, [outside.rows(plan) for plan in plans], vectors)
        rows = np.arange(len(inside) + len(beyond))
        auroc = separation(np.concatenate([inside, beyond]), rows >= len(inside), rows < len(inside))
        say(
            f"    {shots} shots: epistemic {inside.mean():.4f} nats inside, {beyond.mean():.4f} outside, "
            f"AUROC {auroc:.3f}"
        )


def epistemic(
    head: Head,
    plans: Sequence[EpisodePlan],
    outside: Sequence[npt.NDArray[np.int64]],
    vectors: npt.NDArray[np.float32],
) -> tuple[Floats, Floats]:
    """Return the mutual information of label and latent for queries inside and outside, each of all episodes."""
    found: tuple[list[Floats], list[Floats]] = ([], [])
    for plan, rows in zip(plans, outside, strict=True):
        episode = collate([plan], vectors)
        noise = head.draw_noise(episode, SAMPLES, torch.Generator().manual_seed(0))
        with torch.inference_mode():
            state = head.adapt(episode.support)
            for kept, x in zip(found, (episode.query_x, torch.from_numpy(vectors[rows])[None]), strict=True):
                p = head.predict_tensors(state, x, noise).softmax(-1)[0]  # (M, Q, N)
                kept.append(mutual_information(p.transpose(0, 1).double().numpy()))
    return np.concatenate(found[0]), np.concatenate(found[1])


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
