"""The tables of the SQL records, typed, in portable SQL (SQLite and PostgreSQL).

A change here needs a migration in ``migrations/versions`` and a new ``HEAD`` in ``database.py``; a test
compares the two. Times are ISO 8601 text in UTC: they sort, they read, and mean the same in every database.
"""

from __future__ import annotations

import math
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Common base: every constraint has a predictable name, so that a migration can find it again."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class OwnerRow(Base):
    """The one cohort that these records belong to (a single row)."""

    __tablename__ = "owner"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cohort: Mapped[str]


class SupportVersionRow(Base):
    """One version of the support set: who made it, why, and the hash of what it holds."""

    __tablename__ = "support_versions"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[str]
    author: Mapped[str]
    reason: Mapped[str]
    fingerprint: Mapped[str]
    disease_count: Mapped[int]
    case_count: Mapped[int]


class SupportChangeRow(Base):
    """What one version changed about one case; a version holds the last word up to it about every case.

    Rows are only ever added, so every old version stays readable, and a version costs what it changes.
    """

    __tablename__ = "support_changes"

    version: Mapped[int] = mapped_column(ForeignKey("support_versions.version"), primary_key=True)
    study: Mapped[str] = mapped_column(primary_key=True)  # "" stands for every study of the disease
    code: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]  # "present", "removed" by a person, or "dropped" (gone from the table)
    origin: Mapped[str | None]
    scheme: Mapped[str | None]
    meaning: Mapped[str | None]
    patient: Mapped[str | None]
    confirmed_by: Mapped[str | None]
    confirmed_on: Mapped[str | None]
    basis: Mapped[str | None]

    __table_args__ = (Index(None, "study", "code", "version"),)


class PredictionRunRow(Base):
    """One pass over one ingest batch with one bundle, support set, split and state of the data."""

    __tablename__ = "prediction_runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    bundle: Mapped[str]
    support_version: Mapped[int] = mapped_column(ForeignKey("support_versions.version"))
    split_version: Mapped[str]
    data_version: Mapped[str]
    batch: Mapped[str]
    created_at: Mapped[str]

    __table_args__ = (
        UniqueConstraint("bundle", "support_version", "split_version", "data_version", "batch"),
        Index(None, "batch", "created_at"),
    )


class PredictionRow(Base):
    """The answer for one study within one run."""

    __tablename__ = "predictions"

    run: Mapped[int] = mapped_column(ForeignKey("prediction_runs.id", ondelete="CASCADE"), primary_key=True)
    study: Mapped[str] = mapped_column(primary_key=True)
    entropy: Mapped[float]
    support_patient: Mapped[bool]
    probabilities: Mapped[dict[str, float]] = mapped_column(JSON)
    nearest: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    # NULL where the head that answered cannot give them.
    epistemic: Mapped[float | None]
    aleatoric: Mapped[float | None]
    interval: Mapped[dict[str, list[float]] | None] = mapped_column(JSON(none_as_null=True))
    evidence: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))

    __table_args__ = (Index(None, "study"),)


class OpeningRow(Base):
    """One look at the rare diseases: a bundle and a protocol on one split, and how often it was repeated."""

    __tablename__ = "openings"

    id: Mapped[int] = mapped_column(primary_key=True)
    bundle: Mapped[str]
    split_version: Mapped[str]
    protocol: Mapped[str]
    first_at: Mapped[str]
    first_by: Mapped[str]
    last_at: Mapped[str]
    last_by: Mapped[str]
    times: Mapped[int]

    __table_args__ = (UniqueConstraint("bundle", "split_version", "protocol"),)


class EvaluationRow(Base):
    """The figures of one evaluation."""

    __tablename__ = "evaluations"

    id: Mapped[int] = mapped_column(primary_key=True)
    bundle: Mapped[str]
    protocol: Mapped[str]
    split_version: Mapped[str]
    data_version: Mapped[str]
    numbers: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[str]

    __table_args__ = (UniqueConstraint("bundle", "protocol", "split_version", "data_version"),)


def now() -> str:
    """Return this moment as ISO 8601 text in UTC, always with microseconds so that text sorts as time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold in every database.

    Dataclasses become objects, NumPy values Python's own, tuples lists; a number that is not finite becomes
    None, because PostgreSQL refuses ``NaN`` in JSON.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
