"""``cohort.toml``: the one small file that says what a cohort is and what is to be done with it.

Each room declares its own options as a frozen dataclass with defaults; this module composes them into
:class:`Settings` and reads them strictly: a wrong key or value is refused with the key, the value and what is
allowed. Only the command line and the Dagster assets read it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import types
import typing
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from meta_dx.backbones import BackboneOptions
from meta_dx.cohort.holdout import InboxOptions
from meta_dx.cohort.images import ImageOptions
from meta_dx.cohort.ingest import IngestOptions
from meta_dx.cohort.splits import SplitOptions
from meta_dx.dicom.pacs.address import is_address, parse_address
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError
from meta_dx.evaluation.options import EvaluationOptions
from meta_dx.inference.serving import ServeOptions
from meta_dx.learners.options import LearnerOptions
from meta_dx.review.options import ReviewOptions
from meta_dx.review.report_archive import archive_address
from meta_dx.training.options import TrainingOptions, require_even_shards, require_steps


@dataclass(frozen=True)
class CohortOptions:
    """Section ``[cohort]``: where the studies and their diagnoses are.

    Parameters
    ----------
    name : str
        Short name; a home belongs to one cohort.
    sources : tuple of str
        Folders with DICOM files, searched recursively; relative to this file; ``$NAME`` is an environment variable.
        Also addresses of archives (:mod:`meta_dx.dicom.pacs.address`).
    diagnoses : str
        Table of confirmed diagnoses (CSV); empty when there is none yet.
    codes : str
        Optional table ``code,parent`` (CSV) of diseases that contain one another.
    seed : int
        The one seed of the whole run.
    device : {"auto", "cpu", "cuda"}
        Where to train and to predict.
    """

    name: str
    sources: tuple[str, ...]
    diagnoses: str = ""
    codes: str = ""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", self.name):
            raise MetaDxError(
                "bad_value", f"name is '{self.name}': allowed are lower-case letters, digits, '-' and '_'."
            )
        if not self.sources:
            raise MetaDxError("bad_value", "sources is empty: name at least one folder with DICOM files.")


@dataclass(frozen=True)
class PrivacyOptions:
    """Section ``[privacy]``.

    Parameters
    ----------
    pictures_in_lineage : bool
        Show preprocessed study pictures in Dagster's metadata. The event log is not protected: only for cohorts
        without patients.
    """

    pictures_in_lineage: bool = False


@dataclass(frozen=True)
class Settings:
    """Everything in ``cohort.toml``; one field a section, declared by the room that uses it."""

    cohort: CohortOptions
    ingest: IngestOptions = field(default_factory=IngestOptions)
    pacs: PacsOptions = field(default_factory=PacsOptions)
    images: ImageOptions = field(default_factory=ImageOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    backbone: BackboneOptions = field(default_factory=BackboneOptions)
    learner: LearnerOptions = field(default_factory=LearnerOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    serve: ServeOptions = field(default_factory=ServeOptions)
    inbox: InboxOptions = field(default_factory=InboxOptions)
    review: ReviewOptions = field(default_factory=ReviewOptions)
    privacy: PrivacyOptions = field(default_factory=PrivacyOptions)

    @property
    def sources(self) -> list[Path]:
        """Source folders as absolute paths."""
        return [Path(source) for source in self.cohort.sources if not is_address(source)]

    @property
    def addresses(self) -> list[str]:
        """Sources that are archives."""
        return [source for source in self.cohort.sources if is_address(source)]


def load_settings(path: Path | str) -> Settings:
    """Read ``cohort.toml``.

    Parameters
    ----------
    path : Path or str
        The file.

    Returns
    -------
    Settings
        With absolute paths and environment variables filled in.

    Raises
    ------
    MetaDxError
        ``no_settings``, ``bad_toml``, ``unknown_key``, ``missing_key``, ``bad_value`` or ``unset_variable``: always
        with the file, the key, the value and what is allowed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise MetaDxError(
            "no_settings",
            f"Cannot read the cohort file {path} ({type(fault).__name__}): 'meta-dx init' writes one.",
        ) from fault
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise MetaDxError("bad_toml", f"{path} is no valid TOML: {fault}.") from fault
    return parse_settings(table, path)


def parse_settings(table: dict[str, Any], path: Path) -> Settings:
    """Build settings from a parsed table; ``path`` names the file in messages and anchors relative paths."""
    sections = get_type_hints(Settings)
    _refuse_unknown(table, sections, f"{path}", "section")
    if "cohort" not in table:
        raise MetaDxError("missing_key", f"{path} has no section [cohort]: it needs 'name' and 'sources'.")
    parsed: dict[str, Any] = {}
    for name, content in table.items():
        if not isinstance(content, dict):
            raise MetaDxError("bad_value", f"{path}: '{name}' must be a section, written [{name}].")
        parsed[name] = _section(sections[name], content, f"{path} [{name}]")
    settings = Settings(**parsed)
    try:
        require_steps(settings.learner.wanted, settings.training)
        require_even_shards(settings.learner.wanted, settings.training)
    except MetaDxError as fault:
        raise MetaDxError(fault.code, f"{path}: {fault}") from fault
    cohort = settings.cohort
    anchored = replace(
        cohort,
        sources=tuple(
            source if is_address(source) else _path(source, path, "sources") for source in cohort.sources
        ),
        diagnoses=_path(cohort.diagnoses, path, "diagnoses"),
        codes=_path(cohort.codes, path, "codes"),
    )
    weights = _path(settings.backbone.weights, path, "weights", section="backbone")
    return replace(
        settings,
        cohort=anchored,
        backbone=replace(settings.backbone, weights=weights),
        pacs=_pacs(settings, path),
        review=_review(settings, path),
    )


def _pacs(settings: Settings, path: Path) -> PacsOptions:
    try:
        for address in settings.addresses:
            parse_address(address, settings.pacs)
    except MetaDxError as fault:
        raise MetaDxError(fault.code, f"{path} [cohort] sources: {fault}") from fault
    pacs = settings.pacs
    return replace(
        pacs,
        credentials=_path(pacs.credentials, path, "credentials", section="pacs"),
        ca_file=_path(pacs.ca_file, path, "ca_file", section="pacs"),
    )


def _review(settings: Settings, path: Path) -> ReviewOptions:
    review, openid = settings.review, settings.review.openid
    try:
        if review.archive:
            archive_address(review.archive, settings.pacs)
    except MetaDxError as fault:
        raise MetaDxError(fault.code, f"{path} [review] archive: {fault}") from fault
    section = "review.openid"
    secret_file = _path(openid.secret_file, path, "secret_file", section)
    ca_file = _path(openid.ca_file, path, "ca_file", section)
    return replace(review, openid=replace(openid, secret_file=secret_file, ca_file=ca_file))


def _section(kind: type, content: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    _refuse_unknown(content, hints, where, "key")
    missing = [
        f.name
        for f in fields(kind)
        if f.default is MISSING and f.default_factory is MISSING and f.name not in content
    ]
    if missing:
        raise MetaDxError("missing_key", f"{where} lacks '{missing[0]}': add it ('meta-dx init' shows how).")
    values = {key: _value(value, hints[key], f"{where} {key}") for key, value in content.items()}
    try:
        return kind(**values)
    except MetaDxError as fault:
        raise MetaDxError(fault.code, f"{where}: {fault}") from fault
    except ValueError as fault:
        raise MetaDxError("bad_value", f"{where}: {fault}") from fault


def _refuse_unknown(content: dict[str, Any], allowed: dict[str, Any], where: str, what: str) -> None:
    for key, value in content.items():
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            shown = "" if isinstance(value, dict) else f" (= {value!r})"
            raise MetaDxError(
                "unknown_key",
                f"{where}: unknown {what} '{key}'{shown}; allowed are {', '.join(allowed)}.{hint}",
            )


def _value(value: Any, kind: Any, where: str) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, dict):
            name = where.replace("] ", ".").partition("[")[2]
            raise MetaDxError("bad_value", f"{where} is {value!r}: allowed is a section, written [{name}].")
        return _section(kind, value, f"{where.rpartition('] ')[0]}.{where.rpartition('] ')[2]}]")  # type: ignore[arg-type]
    origin = get_origin(kind)
    if origin is Literal:
        if value not in get_args(kind):
            allowed = ", ".join(repr(choice) for choice in get_args(kind))
            raise MetaDxError("bad_value", f"{where} is {value!r}: allowed are {allowed}.")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise MetaDxError("bad_value", f'{where} is {value!r}: allowed is a list, written ["…", "…"].')
        kinds = get_args(kind)
        if kinds[-1] is not Ellipsis and len(value) != len(kinds):
            raise MetaDxError("bad_value", f"{where} is {value!r}: allowed is a list of {len(kinds)} values.")
        inner = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else list(kinds)
        return tuple(_value(v, k, where) for v, k in zip(value, inner, strict=True))
    if origin in (typing.Union, types.UnionType):
        kind = next(k for k in get_args(kind) if k is not type(None))
        return _value(value, kind, where)
    return _scalar(value, kind, where)


def _scalar(value: Any, kind: Any, where: str) -> Any:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes"}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise MetaDxError("bad_value", f"{where} is {value!r}: allowed is {words.get(kind, kind)}.")
    return value


def _path(text: str, settings_file: Path, key: str, section: str = "cohort") -> str:
    if not text:
        return ""
    for name in re.findall(r"\$\{?(\w+)\}?", text):
        if name not in os.environ:
            raise MetaDxError(
                "unset_variable",
                f"{settings_file} [{section}] {key} uses the environment variable {name}, which is not set: "
                f"run it with {name}=/path/to/the/data in front.",
            )
    filled = Path(os.path.expandvars(text)).expanduser()
    return str(filled if filled.is_absolute() else (settings_file.parent / filled).resolve())
