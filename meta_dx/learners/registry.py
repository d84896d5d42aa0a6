"""Learners by name: what ``[learner] name`` in ``cohort.toml`` may say, and the heads a bundle may serve.

A *learner* is meta-trained on episodes. A *head* answers from embeddings; the baselines are heads that need
no meta-training, and whichever head does best on the validation diseases serves. A *body learner* adapts the
weights of a network and is for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from meta_dx.errors import MetaDxError
from meta_dx.learners.base import Head
from meta_dx.learners.baselines import Logistic, SimpleShot
from meta_dx.learners.body import BodyLearner
from meta_dx.learners.classifier import Classifier
from meta_dx.learners.cosine_classifier import CosineClassifier
from meta_dx.learners.fine_tuning import Augment, FineTuning
from meta_dx.learners.leo import Leo
from meta_dx.learners.maml import Anil, Maml, ProtoMaml
from meta_dx.learners.mann import Mann
from meta_dx.learners.meta_lstm import MetaLstm
from meta_dx.learners.neural_process import NeuralProcess
from meta_dx.learners.options import LearnerOptions, PrototypicalOptions
from meta_dx.learners.prototypical import Prototypical
from meta_dx.learners.reptile import Reptile
from meta_dx.learners.ridge import Ridge


def _prototypical(options: LearnerOptions, size: int, _mean: Tensor | None) -> Head:
    return Prototypical(size, options.prototypical.distance, options.prototypical.learned_scale)


def _anp(options: LearnerOptions, size: int, mean: Tensor | None) -> Head:
    return NeuralProcess(size, mean, options.anp, options.prototypical)


def _leo(options: LearnerOptions, size: int, _mean: Tensor | None) -> Head:
    return Leo(size, options.leo)  # features of unit length as they are, as in the paper


def _simpleshot(_options: LearnerOptions, size: int, mean: Tensor | None) -> Head:
    return SimpleShot(size, mean)


def _logistic(_options: LearnerOptions, size: int, mean: Tensor | None) -> Head:
    return Logistic(size, mean)


def _ridge(_options: LearnerOptions, size: int, mean: Tensor | None) -> Head:
    return Ridge(size, mean)


def _cosine(_options: LearnerOptions, size: int, mean: Tensor | None) -> Head:
    return CosineClassifier(size, mean)


_Builder = Callable[[LearnerOptions, int, Tensor | None], Head]
#: Meta-trained heads for any number of diseases.
LEARNERS: Mapping[str, _Builder] = {"prototypical": _prototypical, "anp": _anp, "leo": _leo}
#: Heads that need only an embedding and its mean over the common diseases.
BASELINES: Mapping[str, _Builder] = {
    "simpleshot": _simpleshot,
    "logistic": _logistic,
    "ridge": _ridge,
    "cosine": _cosine,
}
#: Everything that can answer from embeddings, simplest meta-trained one first.
HEADS: Mapping[str, _Builder] = {**LEARNERS, **BASELINES}
#: Learners that adapt a network's weights; they serve from no bundle.
BODY_LEARNERS = ("maml", "anil", "proto_maml", "reptile", "meta_lstm", "fine_tuning")


def build_head(
    name: str, embedding_size: int, *, base_mean: Tensor | None = None, options: LearnerOptions | None = None
) -> Head:
    """Make a head by name, untrained.

    Parameters
    ----------
    name : str
        A key of ``HEADS``.
    embedding_size : int
        D.
    base_mean : Tensor, optional, shape (D,)
        Mean embedding of the common diseases' studies; the baselines centre by it.
    options : LearnerOptions, optional
        What the learner's paper leaves open.

    Returns
    -------
    Head

    Raises
    ------
    MetaDxError
        ``unknown_learner``.
    """
    if name not in HEADS:
        raise MetaDxError(
            "unknown_learner", f"There is no learner named '{name}': choose one of {', '.join(HEADS)}."
        )
    return HEADS[name](options or LearnerOptions(), embedding_size, base_mean)


def build_mann(embedding_size: int, ways: int, options: LearnerOptions | None = None) -> Mann:
    """Make a memory-augmented network for one number of diseases, untrained; it serves from no bundle."""
    return Mann(embedding_size, ways, **asdict((options or LearnerOptions()).mann))


def build_body_learner(
    name: str,
    encoder: nn.Module,
    embedding_size: int,
    ways: int,
    options: LearnerOptions | None = None,
    augment: Augment | None = None,
) -> BodyLearner:
    """Make a learner that adapts a network: the encoder with a last layer, untrained.

    Parameters
    ----------
    name : str
        One of ``BODY_LEARNERS``.
    encoder : nn.Module
        Examples to embeddings (B, D); taken over and changed in training.
    embedding_size : int
        D.
    ways : int
        N of the last layer; Proto-MAML and fine-tuning build their own for any N.
    options : LearnerOptions, optional
        What the learner's paper leaves open.
    augment : callable, optional
        Changed versions of images, for fine-tuning.

    Returns
    -------
    BodyLearner

    Raises
    ------
    MetaDxError
        ``unknown_learner``.
    """
    chosen = options or LearnerOptions()
    if name in ("proto_maml", "fine_tuning"):
        network = Classifier(encoder, embedding_size, None)
        if name == "fine_tuning":
            return FineTuning(network, chosen.fine_tuning, augment)
        return ProtoMaml(network, chosen.proto_maml)
    network = Classifier(encoder, embedding_size, ways)
    builders: dict[str, Callable[[], BodyLearner]] = {
        "maml": lambda: Maml(network, chosen.maml),
        "anil": lambda: Anil(network, chosen.anil),
        "reptile": lambda: Reptile(network, ways, chosen.reptile),
        "meta_lstm": lambda: MetaLstm(network, ways, chosen.meta_lstm),
    }
    if name not in builders:
        raise MetaDxError(
            "unknown_learner",
            f"No learner named '{name}' adapts a network: choose one of {', '.join(BODY_LEARNERS)}.",
        )
    return builders[name]()


def head_payload(name: str, head: Head, embedding_size: int, options: LearnerOptions | None = None) -> Any:
    """Return what :func:`head_from_payload` rebuilds a head from: plain values and tensors."""
    state = {key: value.detach().cpu() for key, value in head.state_dict().items()}
    chosen = options or LearnerOptions()
    own = getattr(chosen, name, None)
    content = {"name": name, "embedding_size": embedding_size, "state": state}
    # The neural process may add to Prototypical Networks.
    content["prototypical"] = asdict(chosen.prototypical)
    return {**content, "options": {} if own is None else asdict(own)}


def head_from_payload(payload: Mapping[str, Any]) -> Head:
    """Rebuild a head, in evaluation mode."""
    options = LearnerOptions(prototypical=PrototypicalOptions(**payload.get("prototypical", {})))
    if (default := getattr(options, payload["name"], None)) is not None:
        options = replace(options, **{payload["name"]: type(default)(**payload["options"])})
    head = build_head(payload["name"], payload["embedding_size"], options=options)
    head.load_state_dict(payload["state"])
    return head.eval()
