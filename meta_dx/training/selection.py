"""The choice: every checkpoint with every head on the same validation episodes; the best pair serves.

The end of pre-training is a candidate too, so a learner that does not improve on it is not chosen, and the
table says so. Rare diseases play no part.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from meta_dx.backbones.encoder import Encoder, build_encoder, load_encoder, save_encoder, weights_hash
from meta_dx.home import fingerprint_of, write_bytes, write_json
from meta_dx.learners.base import Head
from meta_dx.learners.registry import BASELINES, build_head, head_from_payload, head_payload
from meta_dx.progress import Progress, silent
from meta_dx.training.curves import Curve, plot_curves
from meta_dx.training.embedding import Vectors, embed_studies
from meta_dx.training.features import cached_features, study_features
from meta_dx.training.stage import StageResult
from meta_dx.training.task import TrainingTask, open_fabric
from meta_dx.training.validation import Score, ValidationEpisodes

if TYPE_CHECKING:
    from torch import Tensor

SELECTED = "selected"
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
        Names encoder, head and base mean.
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
    def rows(self) -> list[dict[str, Any]]:
        """The selection table, for showing."""
        return self.selection

    def encoder(self) -> Encoder:
        """Load the encoder, in evaluation mode."""
        return load_encoder(self.encoder_path)

    def heads(self) -> dict[str, Head]:
        """Load every head of the chosen checkpoint, the chosen one first; all share the encoder."""
        content = torch.load(self.folder / "heads.pt", map_location="cpu", weights_only=True)
        return {name: head_from_payload(payload) for name, payload in content["heads"].items()}

    @property
    def base_mean(self) -> Tensor:
        """Mean embedding (D,) of the common diseases' studies."""
        mean: Tensor = torch.load(self.folder / "heads.pt", map_location="cpu", weights_only=True)[
            "base_mean"
        ]
        return mean


@dataclass(frozen=True)
class _Candidate:
    stage: str
    encoder: Encoder
    base_mean: Tensor
    heads: dict[str, Head]
    scores: dict[str, list[Score]]

    def mean(self, head: str) -> float:
        """Mean accuracy over the numbers of shots."""
        return float(np.mean([score.accuracy for score in self.scores[head]]))


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
    key = fingerprint_of([task.key(), task.learner.own(), asdict(task.options), [s.version for s in stages]])
    path = task.folder / SELECTED / _RESULT
    if path.exists() and json.loads(path.read_text())["key"] == key:
        return load_result(task.folder)  # type: ignore[return-value] # it exists
    episodes = ValidationEpisodes(task.validation, task.options, task.seed, task.ancestors)
    candidates = []
    for done, stage in enumerate(stages):
        progress(done, len(stages), f"comparing heads on {stage.name}")
        candidates.append(_candidate(task, stage, episodes, features))
    pairs = [(candidate, head) for candidate in candidates for head in candidate.heads]
    chosen, head = max(pairs, key=lambda pair: pair[0].mean(pair[1]))  # the first of several that are level
    result = TrainingResult(
        folder=path.parent,
        stage=chosen.stage,
        head=head,
        embedding_size=chosen.encoder.embedding_size,
        version=fingerprint_of([weights_hash(chosen.encoder), head, weights_hash(chosen.heads[head])]),
        selection=_table(pairs, chosen, head),
        note=_note(candidates, chosen, head),
        history={stage.name: stage.history for stage in stages},
    )
    _write(task, result, chosen, key)
    progress(len(stages), len(stages), result.note)
    return result


def _candidate(
    task: TrainingTask, stage: StageResult, episodes: ValidationEpisodes, features: Path | None
) -> _Candidate:
    best = stage.best
    encoder = build_encoder(replace(task.backbone, weights=""), task.channels, task.spatial_dims).eval()
    encoder.load_state_dict(best["encoder"])
    common, validation = _embedded(task, encoder, features)
    base_mean = torch.from_numpy(common.mean(0))
    names = [task.learner.name, *(name for name in BASELINES if name != task.learner.name)]
    heads = {
        name: build_head(name, encoder.embedding_size, base_mean=base_mean, options=task.learner).eval()
        for name in names
    }
    if "head" in best:
        heads[stage.name].load_state_dict(best["head"])
    scores = {name: episodes.scores(head, validation) for name, head in heads.items()}
    return _Candidate(stage.name, encoder, base_mean, heads, scores)


def _embedded(task: TrainingTask, encoder: Encoder, features: Path | None) -> tuple[Vectors, Vectors]:
    """Return the study embeddings of the common and of the validation diseases."""
    device = str(open_fabric(task).device)
    if features is not None and task.images_version:
        cached = cached_features(features, encoder, task.images, task.images_version, device=device)
        found = study_features(cached, task.common), study_features(cached, task.validation)
    else:
        found = (
            embed_studies(encoder, task.images, task.common, device=device),
            embed_studies(encoder, task.images, task.validation, device=device),
        )
    encoder.cpu()
    return found


def _table(pairs: Sequence[tuple[_Candidate, str]], chosen: _Candidate, head: str) -> list[dict[str, Any]]:
    return [
        {
            "checkpoint": candidate.stage,
            "head": name,
            **{key: round(value, 4) for key, value in asdict(score).items()},
            "mean": round(candidate.mean(name), 4),
            "chosen": candidate is chosen and name == head,
        }
        for candidate, name in pairs
        for score in candidate.scores[name]
    ]


def _note(candidates: Sequence[_Candidate], chosen: _Candidate, head: str) -> str:
    best = chosen.mean(head)
    text = f"{head} on the {chosen.stage} checkpoint: {best:.1%} on the validation diseases."
    for other in candidates:
        if other is not chosen:
            name = max(other.heads, key=other.mean)
            lead = 100 * (best - other.mean(name))
            text += f" Not chosen: the {other.stage} checkpoint, at best {other.mean(name):.1%} ({name}),"
            text += f" {lead:.1f} points lower."
    return text


def _write(task: TrainingTask, result: TrainingResult, chosen: _Candidate, key: str) -> None:
    size = result.embedding_size
    ordered = [result.head, *(name for name in chosen.heads if name != result.head)]
    buffer = io.BytesIO()
    torch.save(
        {
            "base_mean": chosen.base_mean,
            "heads": {name: head_payload(name, chosen.heads[name], size, task.learner) for name in ordered},
        },
        buffer,
    )
    save_encoder(chosen.encoder, result.encoder_path)
    write_bytes(result.folder / "heads.pt", buffer.getvalue())
    plot_curves(result.history, result.curves)
    content = {"key": key, **vars(result)}
    del content["folder"]
    write_json(result.folder / _RESULT, content)  # last: it marks the choice as made
