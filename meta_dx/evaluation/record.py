"""Keep results: as JSON in the evaluation's folder, as the object of ``meta-dx evaluate --json``."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from meta_dx.evaluation.deployment import DeploymentResult
from meta_dx.evaluation.doubt import DoubtResult
from meta_dx.evaluation.episodic import BASELINES, EpisodicResult
from meta_dx.evaluation.figures import MethodResult

T = TypeVar("T")

_DEPLOYED = (
    *("accuracy", "ci95", "top3", "top3_ci95", "top5", "top5_ci95"),
    *("auroc", "auroc_ci95", "ece", "ece_ci95"),
)


def to_json(result: Any) -> dict[str, Any]:
    """Return any result of this room as plain JSON; a figure that could not be computed becomes None."""
    plain = _plain(asdict(result))
    return dict(plain)


def from_json(kind: type[T], value: Mapping[str, Any]) -> T:
    """Rebuild a result from :func:`to_json`.

    Parameters
    ----------
    kind : type
        The dataclass: ``EpisodicResult``, ``DeploymentResult``, ``HoldoutResult``, …
    value : mapping
        What :func:`to_json` gave.

    Returns
    -------
    kind
    """
    built: T = _build(kind, value)
    return built


def contract(episodic: EpisodicResult, deployment: DeploymentResult | None = None) -> dict[str, Any]:
    """Return the object that ``meta-dx evaluate --json`` prints.

    Its schema is ``docs/contract-schemas/evaluate.schema.json``.

    Parameters
    ----------
    episodic : EpisodicResult
        The figures at the top are those of the serving head.
    deployment : DeploymentResult, optional
        Adds ``deployment``, for ``--deployment``.

    Returns
    -------
    dict
    """
    methods = episodic.comparison.methods
    found = {
        **_figures(episodic.comparison.served, episodic.doubt[episodic.comparison.serving]),
        "classes": len(episodic.classes),
        "left_out": len(episodic.left_out),
        "episodes": episodic.episodes,
        "queries_per_class": _plain(asdict(episodic.queries_per_class)),
        "baselines": {
            name: _figures(figures, episodic.doubt[name])
            for name, figures in _beside(methods, episodic.comparison.serving).items()
        },
    }
    if deployment is not None:
        shown = deployment.comparison
        found["deployment"] = {
            **_deployed(shown.served),
            "ways": len(deployment.offered),
            "shots": _plain(asdict(deployment.shots)),
            "repeats": deployment.repeats,
            "one_short": len(deployment.one_short),
            "untested": len(deployment.untested),
            "baselines": {
                name: _deployed(figures) for name, figures in _beside(shown.methods, shown.serving).items()
            },
        }
    return found


def _beside(methods: Mapping[str, MethodResult], serving: str) -> dict[str, MethodResult]:
    """Return the methods beside the serving one; the standing baselines also when one of them is served."""
    return {name: found for name, found in methods.items() if name != serving or name in BASELINES}


def _figures(found: MethodResult, doubt: DoubtResult) -> dict[str, Any]:
    return {
        "accuracy": _plain(found.accuracy),
        "ci95": _plain(found.ci95),
        "mc95": _plain(found.mc95),
        "auroc": _plain(found.auroc),
        "ece": _plain(found.ece),
        **_plain(asdict(doubt)),
    }


def _deployed(found: MethodResult) -> dict[str, Any]:
    return {name: _plain(getattr(found, name)) for name in _DEPLOYED}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return value


def _build(kind: Any, value: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _build(next(k for k in inner if k is not type(None)), value)
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_build(k, item) for k, item in zip(kinds, value, strict=True))
    if origin is dict:
        return {key: _build(inner[1], item) for key, item in value.items()}
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        parts = {field.name: _build(hints[field.name], value[field.name]) for field in fields(kind)}
        construct: Any = kind
        return construct(**parts)
    return float("nan") if value is None and kind is float else value
