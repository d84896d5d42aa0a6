"""The choice: every checkpoint with every head on the same validation episodes; the best pair serves.

The end of pre-training is a candidate too, so a learner that does not improve on it is not chosen, and the
table says so. Rare diseases play no part.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch

from meta_dx.backbones.encoder import Encoder, load_encoder, save_encoder, weights_hash
from meta_dx.home import fingerprint_of, write_bytes, write_json
from meta_dx.learners.base import Head
from meta_dx.learners.registry import BASELINES, build_head, head_from_payload, head_payload
from meta_dx.progress import Progress, silent
from meta_dx.training.body import build_on_images, image_hits
from meta_dx.training.comparison import plot_comparison, ranked
from meta_dx.training.curves import Curve, plot_curves
from meta_dx.training.embedding import Pictures
from meta_dx.training.episodic import PROTOTYPICAL
from meta_dx.training.frozen import build_on_embeddings
from meta_dx.training.options import FROZEN_LEARNERS
from meta_dx.training.stage import StageResult
from meta_dx.training.start import embedded, encoder_of
from meta_dx.training.task import SELECTION_VERSION, TrainingTask, open_fabric, step_seed
from meta_dx.training.validation import Hits, Learner, ValidationEpisodes

if TYPE_CHECKING:
    from torch import Tensor

SELECTED = "selected"
#: The head that also says how sure it is, and by how much less often right it may be (95 % interval) to serve.
UNCERTAIN, MARGIN = "anp", 0.01
#: With fewer validation diseases, an interval over them is too narrow to tell.
FEWEST_DISEASES = 10
_RESULT = "training.json"


@dataclass(frozen=True)
class TrainingResult:
    """What training hands on: one encoder, one head, and why these.

    Parameters
    ----------
    folder : Path
        ``selected/`` of the run.
    stage : str
        The chosen checkpoint: ``"pretrain"`` or the learner.
    head : str
        The chosen head.
    embedding_size : int
        D.
    version : str
        Names all that goes into a bundle: encoder, every head with its options, which of them serves, and the table.
    selection : list of dict
        One row for each checkpoint, head and number of shots.
    note : str
        One sentence that says what was chosen and by how much.
    history : dict of str to list
        Learning curves of the stages.
    """

    folder: Path
    stage: str
    head: str
    embedding_size: int
    version: str
    selection: list[dict[str, Any]]
    note: str
    history: dict[str, Curve]

    @property
    def encoder_path(self) -> Path:
        """Weights and description of the encoder."""
        return self.folder / "encoder.pt"

    @property
    def curves(self) -> Path:
        """Picture of the learning curves of all stages."""
        return self.folder / "curves.png"

    @property
    def comparison(self) -> Path:
        """Picture of all learners side by side."""
        return self.folder / "comparison.png"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The selection table, for showing."""
        return self.selection

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """The same, each learner once with the weights that suit it best, best first."""
        return ranked(self.selection)

    def encoder(self) -> Encoder:
        """Load the encoder, in evaluation mode."""
        return load_encoder(self.encoder_path)

    def heads(self) -> dict[str, Head]:
        """Load every head of the chosen checkpoint, the chosen one first; all share the encoder."""
        content = torch.load(self.folder / "heads.pt", map_location="cpu", weights_only=True)
        return {name: head_from_payload(payload) for name, payload in content["heads"].items()}

    def options(self, head: str) -> dict[str, Any]:
        """Return what decided one of these heads: its name and its options, as they were resolved."""
        content = torch.load(self.folder / "heads.pt", map_location="cpu", weights_only=True)
        return {"name": head, **content["heads"][head]["options"]}

    @property
    def base_mean(self) -> Tensor:
        """Mean embedding (D,) of the common diseases' studies."""
        mean: Tensor = torch.load(self.folder / "heads.pt", map_location="cpu", weights_only=True)[
            "base_mean"
        ]
        return mean


@dataclass(frozen=True)
class _Candidate:
    """An encoder with every learner that answers from its embeddings."""

    stage: str
    encoder: Encoder
    base_mean: Tensor
    learners: dict[str, Learner]
    hits: dict[str, Hits]
    means: dict[str, float]  # accuracy over the numbers of shots

    @property
    def heads(self) -> dict[str, Head]:
        """Return what can live in a bundle: any number of diseases, and a small state."""
        return {name: head for name, head in self.learners.items() if _serves(head)}


def _serves(learner: Learner) -> TypeGuard[Head]:
    able = learner.capabilities
    return isinstance(learner, Head) and able.serves_from_state and not able.fixed_ways


def load_result(folder: Path) -> TrainingResult | None:
    """Read the choice that was made in a run's folder, if one was made."""
    path = folder / SELECTED / _RESULT
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    del content["key"]
    return TrainingResult(folder=folder / SELECTED, **content)


def select(
    task: TrainingTask,
    stages: Sequence[StageResult],
    *,
    features: Path | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Choose checkpoint and head on the validation diseases.

    Parameters
    ----------
    task : TrainingTask
        Data, options and folder.
    stages : sequence of StageResult
        Pre-training first, then the learners.
    features : Path, optional
        Folder of the feature cache; without it, or without ``images_version``, nothing is cached.
    progress : Progress
        Called with checkpoints done.

    Returns
    -------
    TrainingResult
    """
    options = {**asdict(task.options)}
    del options["shards"]  # it decides the stages, which are named, and nothing more
    version = [asdict(task.learner), options, [s.version for s in stages]]
    key = fingerprint_of([SELECTION_VERSION, task.key(), *version])
    path = task.folder / SELECTED / _RESULT
    if path.exists() and json.loads(path.read_text())["key"] == key:
        return load_result(task.folder)  # type: ignore[return-value] # it exists
    # Other episodes than those by which each stage chose its weights: it has fitted the luck of those.
    seed = step_seed(task.seed, SELECTED, 0)
    episodes = ValidationEpisodes(task.validation, task.options, seed, task.ancestors)
    candidates: list[_Candidate] = []
    alone: dict[str, Hits] = {}
    for done, stage in enumerate(stages):
        progress(done, len(stages), f"comparing learners on {stage.name}")
        if "learner" in stage.best:
            alone[stage.name] = _network_hits(task, stage, episodes)
        elif stage.name in FROZEN_LEARNERS:
            _add_learner(task, stage, candidates, episodes, features)
        else:
            candidates.append(_candidate(task, stage, episodes, features))
    chosen, head, note = _choice(candidates, episodes)
    table = _table(candidates, alone, episodes, chosen, head)
    contained = {name: [task.learner.own(name), weights_hash(one)] for name, one in chosen.heads.items()}
    result = TrainingResult(
        folder=path.parent,
        stage=chosen.stage,
        head=head,
        embedding_size=chosen.encoder.embedding_size,
        version=fingerprint_of([weights_hash(chosen.encoder), head, contained, table]),
        selection=table,
        note=note,
        history={stage.name: stage.history for stage in stages},
    )
    _write(task, result, chosen, key)
    progress(len(stages), len(stages), result.note)
    return result


def _candidate(
    task: TrainingTask, stage: StageResult, episodes: ValidationEpisodes, features: Path | None
) -> _Candidate:
    encoder = encoder_of(task, stage)
    common, validation = embedded(task, encoder, features)
    base_mean = torch.from_numpy(common.mean(0))
    heads: dict[str, Learner] = {
        name: build_head(name, encoder.embedding_size, base_mean=base_mean, options=task.learner).eval()
        for name in (PROTOTYPICAL, *BASELINES)
    }
    if "head" in stage.best:
        heads[PROTOTYPICAL].load_state_dict(stage.best["head"])
    hits = {name: episodes.hits(head, validation) for name, head in heads.items()}
    means = {name: episodes.accuracy_of(found) for name, found in hits.items()}
    return _Candidate(stage.name, encoder, base_mean, heads, hits, means)


def _add_learner(
    task: TrainingTask,
    stage: StageResult,
    candidates: Sequence[_Candidate],
    episodes: ValidationEpisodes,
    features: Path | None,
) -> None:
    """Set a learner beside the others of the encoder whose embeddings it was trained on."""
    name = weights_hash(encoder_of(task, stage))
    home = next(candidate for candidate in candidates if weights_hash(candidate.encoder) == name)
    learner = build_on_embeddings(stage.name, home.encoder.embedding_size, task, base_mean=home.base_mean)
    learner.load_state_dict(stage.best["head"])
    home.learners[stage.name] = learner.eval()
    _, validation = embedded(task, home.encoder, features)
    home.hits[stage.name] = found = episodes.hits(learner, validation)
    home.means[stage.name] = episodes.accuracy_of(found)


def _network_hits(task: TrainingTask, stage: StageResult, episodes: ValidationEpisodes) -> Hits:
    device = open_fabric(task).device
    learner = build_on_images(stage.name, task)
    learner.load_state_dict(stage.best["learner"])
    return image_hits(learner.to(device).eval(), episodes, task, Pictures(task.images, device))


def _choice(candidates: Sequence[_Candidate], episodes: ValidationEpisodes) -> tuple[_Candidate, str, str]:
    """Return encoder, serving head, and the sentence that says why.

    The best head that gives a plain answer, or the neural process where it is not worse by more than the
    margin: it also says how sure it is, and why.
    """
    pairs = [(c, name) for c in candidates for name in c.heads if name != UNCERTAIN]
    plain, head = max(pairs, key=lambda pair: pair[0].means[pair[1]])  # the first of several that are level
    best = f"{head} on the {plain.stage} checkpoint ({plain.means[head]:.1%} on the validation diseases)"
    others = [_best_of(c, plain.means[head]) for c in candidates if c is not plain]
    beside = f" Best of the others: {'; '.join(others)}." if others else ""
    for candidate in candidates:
        if UNCERTAIN not in candidate.heads:
            continue
        gap, low, high = episodes.difference(candidate.hits[UNCERTAIN], plain.hits[head])
        measured = f"{100 * gap:+.1f} points, interval {100 * low:+.1f} to {100 * high:+.1f}"
        against = f"against {best}: {measured}.{beside}"
        diseases = episodes.diseases
        if not candidate.heads[UNCERTAIN].noise_size:
            return plain, head, f"{best} serves; {UNCERTAIN} without its latent says no more.{beside}"
        if diseases < FEWEST_DISEASES:
            why = f"{diseases} validation diseases are too few to tell whether it is level"
            return plain, head, f"{best} serves. {UNCERTAIN} does not: {why} ({measured}).{beside}"
        if low >= -MARGIN:
            return candidate, UNCERTAIN, f"{UNCERTAIN} on the {candidate.stage} checkpoint serves, {against}"
        return plain, head, f"{best} serves. {UNCERTAIN} may be more than a point lower ({measured}).{beside}"
    return plain, head, f"{best} serves.{beside}"


def _best_of(candidate: _Candidate, best: float) -> str:
    name = max((n for n in candidate.heads if n != UNCERTAIN), key=candidate.means.__getitem__)
    lead = 100 * (best - candidate.means[name])
    return (
        f"the {candidate.stage} checkpoint with {name}, {candidate.means[name]:.1%}, {lead:.1f} points lower"
    )


def _table(
    candidates: Sequence[_Candidate],
    alone: Mapping[str, Hits],
    episodes: ValidationEpisodes,
    chosen: _Candidate,
    head: str,
) -> list[dict[str, Any]]:
    """Return a row for each encoder, learner and number of shots; learners that adapt a network come last."""
    answers = [(c, c.stage, name, c.hits[name]) for c in candidates for name in c.learners]
    answers += [(None, name, name, hits) for name, hits in alone.items()]  # type: ignore[misc] # no encoder
    return [
        {
            "checkpoint": stage,
            "head": name,
            **{key: None if np.isnan(value) else round(value, 4) for key, value in asdict(score).items()},
            "mean": round(episodes.accuracy_of(hits), 4),
            "serves": candidate is not None and name in candidate.heads,
            "chosen": candidate is chosen and name == head,
        }
        for candidate, stage, name, hits in answers
        for score in episodes.scored(hits)
    ]


def _write(task: TrainingTask, result: TrainingResult, chosen: _Candidate, key: str) -> None:
    size = result.embedding_size
    heads = chosen.heads
    ordered = [result.head, *(name for name in heads if name != result.head)]
    buffer = io.BytesIO()
    torch.save(
        {
            "base_mean": chosen.base_mean,
            "heads": {name: head_payload(name, heads[name], size, task.learner) for name in ordered},
        },
        buffer,
    )
    save_encoder(chosen.encoder, result.encoder_path)
    write_bytes(result.folder / "heads.pt", buffer.getvalue())
    plot_curves(result.history, result.curves)
    plot_comparison(result.selection, result.comparison)
    content = {"key": key, **vars(result)}
    del content["folder"]
    write_json(result.folder / _RESULT, content)  # last: it marks the choice as made
