"""Learners that are in no bundle, beside those that are, on one cohort: training, validation and rare diseases.

    export META_DX_DATA=/path/to/cohorts META_DX_HOME=HOME
    python benchmarks/learners_in_no_bundle.py COHORT train maml --steps 250
    python benchmarks/learners_in_no_bundle.py COHORT validate maml anil --episodes 100
    python benchmarks/learners_in_no_bundle.py COHORT rare maml anil meta_lstm --episodes 150

The home holds a finished run of the cohort file with one stage that left an encoder: its bundle, and the encoder
that every learner starts from. ``train`` goes on where it was stopped. ``validate`` and ``rare`` let all learners
answer the same episodes as the heads of the bundle and write accuracy, AUROC, ECE and paired differences, with
intervals over diseases and patients, as JSON into ``--out``. ``rare`` opens the rare diseases, and counts it.

``sgd-12`` and ``sgd-10`` are plain gradient descent on the last layer with the frozen encoder, from a meta-learned
start and with meta-learned rates, with as many steps as Meta-LSTM (12) and LEO (5 + 5) take.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 # after the path
import torch  # noqa: E402
from torch import nn  # noqa: E402

from meta_dx.cohort.examples import Examples  # noqa: E402
from meta_dx.episodes.collate import collate  # noqa: E402
from meta_dx.episodes.episode import Query, Support  # noqa: E402
from meta_dx.episodes.plan import EpisodePlan, EpisodeSampler  # noqa: E402
from meta_dx.evaluation.asking import Asked, ask, from_head  # noqa: E402
from meta_dx.evaluation.comparison import compare  # noqa: E402
from meta_dx.inference.bundle import latest_bundle  # noqa: E402
from meta_dx.inference.predictor import Predictor  # noqa: E402
from meta_dx.learners.base import Grads, Metrics  # noqa: E402
from meta_dx.learners.body import BodyLearner  # noqa: E402
from meta_dx.learners.body_options import MetaLstmOptions  # noqa: E402
from meta_dx.learners.classifier import Classifier  # noqa: E402
from meta_dx.learners.mann import Mann  # noqa: E402
from meta_dx.learners.meta_lstm import sgd_twin  # noqa: E402
from meta_dx.progress import bar  # noqa: E402
from meta_dx.records.database import Records  # noqa: E402
from meta_dx.records.openings import record_opening  # noqa: E402
from meta_dx.steps import Project, open_project  # noqa: E402
from meta_dx.steps.cohort import CohortData, assemble  # noqa: E402
from meta_dx.steps.external import serving_first  # noqa: E402
from meta_dx.steps.training import training_task  # noqa: E402
from meta_dx.training.body import NETWORK_LEARNERS, build_on_images, study_answers, train_on_images  # noqa: E402
from meta_dx.training.determinism import seeded  # noqa: E402
from meta_dx.training.embedding import Pictures  # noqa: E402
from meta_dx.training.episodic import episode_sampler, episodic_stage, shard_plans  # noqa: E402
from meta_dx.training.feasibility import common_ways  # noqa: E402
from meta_dx.training.frozen import build_on_embeddings, train_on_embeddings  # noqa: E402
from meta_dx.training.pretraining import pretrain  # noqa: E402
from meta_dx.training.shards import Shard  # noqa: E402
from meta_dx.training.stage import StageResult, run_stage  # noqa: E402
from meta_dx.training.start import embedded, encoder_of  # noqa: E402
from meta_dx.training.task import TrainingTask, open_fabric, step_seed  # noqa: E402
from meta_dx.training.validation import Checked, ValidationEpisodes  # noqa: E402

#: Beside the weights of a learner: what it was trained from.
ORIGIN = "origin.json"
TWINS = {"sgd-12": 12, "sgd-10": 10}
_EMBEDDED = ("mann", "meta_lstm", *TWINS)
_AGAINST = ("simpleshot", "logistic", *TWINS)


@dataclass(frozen=True)
class Bench:
    """A finished run of a cohort, and what its learners are trained and tested on."""

    project: Project
    data: CohortData
    task: TrainingTask

    @classmethod
    def open(cls, cohort: Path) -> Bench:
        """Read cohort file and home."""
        project = open_project(cohort)
        data = assemble(project)
        return cls(project, data, training_task(project, data))

    @property
    def start(self) -> StageResult:
        """The stage whose encoder all start from."""
        return pretrain(replace(self.task, may_train=False))


class _Twin:
    """The objective of plain gradient descent on the last layer."""

    def __init__(self, bench: Bench, steps: int) -> None:
        self.task = task = bench.task
        encoder = encoder_of(task, bench.start)
        common, self.vectors = embedded(task, encoder, bench.project.home.features)
        self.common = torch.from_numpy(common)
        self.episodes = ValidationEpisodes(task.validation, task.options, task.seed, task.ancestors)
        self.learner = build_twin(encoder.embedding_size, task, steps)
        self.sampler = episode_sampler(task, self.episodes.ways)
        self.parameters = {f"head.{name}": p for name, p in self.learner.named_parameters()}

    def gradients(self, shard: Shard) -> tuple[Grads, Metrics]:
        plans = shard_plans(self.sampler, self.task.options.head_episodes_per_step, shard)
        episode = collate(plans, self.common)
        return self.learner.train().meta_gradients(episode, parameters=self.parameters)

    def validate(self) -> Checked:
        return Checked(self.episodes.accuracy(self.learner.eval(), self.vectors))


def build_twin(size: int, task: TrainingTask, steps: int) -> BodyLearner:
    """Make the learner of plain gradient steps, untrained."""
    ways = common_ways(task.validation, task.options, task.ancestors)
    with seeded(step_seed(task.seed, "sgd", 0)):
        return sgd_twin(Classifier(nn.Identity(), size, ways), MetaLstmOptions(steps=steps))


def train(bench: Bench, name: str, steps: int) -> StageResult:
    """Train one learner from the start's encoder."""
    task = bench.task
    with bar(name) as progress:
        if name in TWINS:
            learning = _Twin(bench, TWINS[name])
            stage = episodic_stage(
                task,
                name,
                task.key(stage=name, start=bench.start.version, steps=steps),
                learning,
                modules={"head": learning.learner},
                rates={"head": task.options.head_learning_rate},
                weight_decay=0.0,
                steps=steps or task.options.head_steps,
            )
            return run_stage(stage, open_fabric(task), progress)
        if name in _EMBEDDED:
            return train_on_embeddings(task, name, bench.start, progress)
        options = replace(task.options, episodes=steps or task.options.episodes)
        return train_on_images(replace(task, options=options), name, bench.start, progress)


def answer(
    bench: Bench, name: str, plans: Sequence[EpisodePlan], examples: Examples, vectors: Any
) -> np.ndarray:
    """Return the probabilities of a learner for every query of every episode, shape (T, N)."""
    task = bench.task
    if name not in (*_EMBEDDED, *NETWORK_LEARNERS):
        predictor = Predictor(latest_bundle(bench.project.home), device="cpu")
        return ask(from_head(predictor, name), vectors, plans)
    if name in _EMBEDDED:
        return ask(_embedded_method(_trained_on_embeddings(bench, name, vectors.shape[1])), vectors, plans)
    learner = build_on_images(name, task)
    learner.load_state_dict(_weights(bench, name)["learner"])
    pictures = Pictures(bench.data.store.images, open_fabric(task).device)
    found = []
    with bar(name) as progress:
        for done, plan in enumerate(plans):
            found += study_answers(learner.eval(), plan, examples, pictures, task.seed)
            progress(done + 1, len(plans), "")
    return np.concatenate(found)


def _trained_on_embeddings(bench: Bench, name: str, size: int) -> BodyLearner | Mann:
    task = bench.task
    made = build_twin(size, task, TWINS[name]) if name in TWINS else build_on_embeddings(name, size, task)
    made.load_state_dict(_weights(bench, name)["head"])
    return made.eval()  # type: ignore[return-value] # none of these is a head


def _origin(bench: Bench) -> dict[str, str]:
    """Name the encoder that a learner starts from and the data that it sees."""
    return {"start": bench.start.version, "data": bench.data.version}


def _weights(bench: Bench, name: str) -> dict[str, Any]:
    folder = bench.task.folder / name
    origin = folder / ORIGIN
    if not (folder / "best.pt").exists() or not origin.exists():
        sys.exit(f"{name} is not trained yet: run `train {name}` first.")
    if json.loads(origin.read_text()) != _origin(bench):
        sys.exit(f"{name} was trained from another encoder or on other data: run `train {name}` again.")
    content: dict[str, Any] = torch.load(folder / "best.pt", map_location="cpu", weights_only=True)
    return content


def _embedded_method(learner: BodyLearner | Mann) -> Callable[[Any, Any, Any], np.ndarray]:
    def method(support: Any, onehot: Any, query: Any) -> np.ndarray:
        hot, x, q = torch.from_numpy(onehot), torch.from_numpy(support), torch.from_numpy(query)
        cases = Support(x, hot.argmax(-1), hot.sum(-1) > 0, hot.sum(1) > 0)
        with torch.no_grad():
            asked = Query(q, torch.ones(q.shape[:2], dtype=torch.bool))
            return learner.predict(learner.adapt(cases), asked).probabilities().double().numpy()

    return method


def measure(
    bench: Bench, names: Sequence[str], plans: Sequence[EpisodePlan], examples: Examples
) -> dict[str, Any]:
    """Return the figures of all learners and heads on the same episodes."""
    bundle = latest_bundle(bench.project.home)
    predictor = Predictor(bundle, device="cpu")
    vectors = predictor.embed_studies(bench.data.store.images, examples.images)
    answers, seconds = {}, {}
    for name in dict.fromkeys([*serving_first(bundle), *names]):
        before = time.process_time()
        answers[name] = answer(bench, name, plans, examples, vectors)
        seconds[name] = round(time.process_time() - before, 1)
    asked, seed = Asked.of(plans, examples), bench.task.seed
    found = compare(asked, answers, serving_first(bundle)[0], seed)
    return {
        "episodes": len(plans),
        "diseases": len(np.unique(asked.disease)),
        "methods": {name: _figures(asdict(result), seconds[name]) for name, result in found.methods.items()},
        "differences": {
            base: {
                d.method: [100 * d.estimate, 100 * d.ci95[0], 100 * d.ci95[1]]
                for d in compare(asked, answers, base, seed).against_served
            }
            for base in (found.serving, *_AGAINST)
            if base in answers
        },
    }


def _figures(result: dict[str, Any], seconds: float) -> dict[str, Any]:
    wanted = ("accuracy", "ci95", "auroc", "auroc_ci95", "ece", "log_loss")
    return {**{name: result[name] for name in wanted}, "cpu_seconds": seconds}


def tasks_of(bench: Bench, what: str, episodes: int) -> Iterator[tuple[int, list[EpisodePlan], Examples]]:
    """Yield shots, the first episodes of the evaluation or of the choice, and their examples."""
    task, data = bench.task, bench.data
    if what == "validate":
        chosen = ValidationEpisodes(
            task.validation, task.options, step_seed(task.seed, "selected", 0), task.ancestors
        )
        for shots, plans in chosen.plans.items():
            yield shots, plans[:episodes], data.by_role["validation"]
        return
    options, rare = bench.project.settings.evaluation, data.by_role["rare"]
    for shots in options.shots:
        sampler = EpisodeSampler(
            rare, options.ways, shots, options.queries, task.seed, ancestors=data.ancestors
        )
        yield shots, list(sampler.plans(episodes)), rare


def main() -> None:
    """Train, validate or test."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path)
    parser.add_argument("what", choices=["train", "validate", "rare"])
    parser.add_argument("names", nargs="*", choices=[*NETWORK_LEARNERS, *_EMBEDDED, []])
    parser.add_argument("--steps", type=int, default=0, help="of training; the cohort file's if absent")
    parser.add_argument("--episodes", type=int, default=100, help="of each number of shots")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("META_DX_HOME", ".meta_dx")))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    bench = Bench.open(arguments.cohort)
    if arguments.what == "train":
        for name in arguments.names:
            done = train(bench, name, arguments.steps)
            (done.folder / ORIGIN).write_text(json.dumps(_origin(bench)))
            sys.stdout.write(
                f"{name}: {done.best_accuracy:.1%} after {done.best_step} of {done.steps} steps\n"
            )
        return
    if arguments.what == "rare":
        protocol = f"learners in no bundle ({', '.join(arguments.names)}), {arguments.episodes} episodes"
        record_opening(
            Records.open(bench.project.home),
            bundle=latest_bundle(bench.project.home).id,
            split_version=bench.data.split.lineage,
            protocol=protocol,
            by="benchmark",
        )
    for shots, plans, examples in tasks_of(bench, arguments.what, arguments.episodes):
        found = measure(bench, arguments.names, plans, examples)
        path = arguments.out / f"{arguments.what}-{shots}shot-{'-'.join(arguments.names)}.json"
        path.write_text(json.dumps(found, indent=1))
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
