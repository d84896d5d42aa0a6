"""The tables of the SQL records, typed, in portable SQL (SQLite and PostgreSQL).

A change here needs a migration in ``migrations/versions`` and a new ``HEAD`` in ``database.py``; a test
compares the two. Times are ISO 8601 text in UTC: they sort, they read, and mean the same in every database.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
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
    remoteness: Mapped[float | None]  # NULL also where too few cases are confirmed
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


class AccountRow(Base):
    """A person who may sign in to the review pages."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)  # in lower case
    role: Mapped[str]
    password_hash: Mapped[str | None]  # None: signs in through OpenID Connect only
    issuer: Mapped[str | None]  # of OpenID Connect; None: of a subject from before issuers were kept
    subject: Mapped[str | None]  # whom that issuer means
    must_change: Mapped[bool]
    enabled: Mapped[bool]
    failures: Mapped[int]
    locked_until: Mapped[str | None]
    created_at: Mapped[str]

    __table_args__ = (UniqueConstraint("issuer", "subject"),)


class SignInRow(Base):
    """A session of one account; the browser holds the token, this table only its hash."""

    __tablename__ = "sign_ins"

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    csrf: Mapped[str]
    created_at: Mapped[str]
    seen_at: Mapped[str]
    ends_at: Mapped[str]

    __table_args__ = (Index(None, "account"),)


class CaseRow(Base):
    """A study that is to be read, and how far its reading has come; nothing here depends on a prediction."""

    __tablename__ = "cases"

    study: Mapped[str] = mapped_column(primary_key=True)
    patient: Mapped[str]
    batch: Mapped[str]
    modality: Mapped[str]
    body_part: Mapped[str | None]
    sex: Mapped[str | None]
    age_years: Mapped[float | None]
    study_date: Mapped[str | None]
    images: Mapped[int]
    series: Mapped[int]
    band: Mapped[int]  # of priority; 0 comes first
    mix: Mapped[int]  # random, from which every reader's own order follows
    state: Mapped[str]  # "open", "disputed" or "done"
    decisions: Mapped[int]  # readers who have decided
    added_at: Mapped[str]

    __table_args__ = (Index(None, "state", "band"), Index(None, "patient"))


class ReadingRow(Base):
    """How far one reader has come with one case."""

    __tablename__ = "readings"

    study: Mapped[str] = mapped_column(ForeignKey("cases.study"), primary_key=True)
    account: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    stage: Mapped[str]  # "started", "read" (the blind opinion stands) or "decided"
    started_at: Mapped[str]
    read_at: Mapped[str | None]
    revealed_at: Mapped[str | None]
    decided_at: Mapped[str | None]
    run: Mapped[int | None]  # the prediction that was shown
    draft: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    # By their ids; loaded only where it is asked for, as a worklist needs none of them.
    lengths: Mapped[dict[str, dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True), deferred=True)

    __table_args__ = (Index(None, "account", "stage"),)


class OpinionRow(Base):
    """What a reader said, in every version: rows are only ever added."""

    __tablename__ = "opinions"

    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey("cases.study"))
    account: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    kind: Mapped[str]  # "blind", "decision" or "adjudication"
    version: Mapped[int]
    content: Mapped[dict[str, Any]] = mapped_column(JSON)
    run: Mapped[int | None]
    bundle: Mapped[str | None]
    support_version: Mapped[int | None]
    created_at: Mapped[str]

    __table_args__ = (UniqueConstraint("study", "account", "kind", "version"),)


class StoredReportRow(Base):
    """What became of the report of one decision in one archive (see :mod:`meta_dx.records.stored_reports`)."""

    __tablename__ = "stored_reports"

    opinion: Mapped[int] = mapped_column(ForeignKey("opinions.id"), primary_key=True)
    archive: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[int] = mapped_column(ForeignKey("accounts.id"))  # who had it stored last
    state: Mapped[str]  # "begun", "stored", "unconfirmed", "refused" or "not_sent"
    why: Mapped[str]
    begun_at: Mapped[str]
    ended_at: Mapped[str | None]
    # Decisions whose reports this one names (``Opinion.key``); None: all earlier ones, from before this was kept.
    predecessors: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))


class ReviewStateRow(Base):
    """A switch of the review pages, such as whether the model's answers are shown."""

    __tablename__ = "review_state"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class AuditRow(Base):
    """One line of the audit trail; ``mac`` chains it to the line before (see :mod:`meta_dx.records.audit`)."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[str]
    account: Mapped[str]
    action: Mapped[str]
    study: Mapped[str | None]
    bundle: Mapped[str | None]
    support_version: Mapped[int | None]
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    mac: Mapped[str]

    __table_args__ = (Index(None, "study"), Index(None, "account"))


def now() -> str:
    """Return this moment as ISO 8601 text in UTC, always with microseconds so that text sorts as time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold in every database.

    Dataclasses become objects, NumPy values Python's own, tuples lists; a number that is not finite becomes
    None, because PostgreSQL refuses ``NaN`` in JSON.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
