"""The first tables: support sets, predictions, openings of the rare diseases, evaluations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Create the tables of version 0.1."""
    op.create_table(
        "owner",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cohort", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_owner"),
    )
    _support()
    _predictions()
    _evaluations()


def _support() -> None:
    op.create_table(
        "support_versions",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        *(_text(name) for name in ("created_at", "author", "reason", "fingerprint")),
        sa.Column("disease_count", sa.Integer(), nullable=False),
        sa.Column("case_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_support_versions"),
    )
    op.create_table(
        "support_changes",
        sa.Column("version", sa.Integer(), nullable=False),
        *(_text(name) for name in ("study", "code", "state")),
        *(
            sa.Column(name, sa.String(), nullable=True)
            for name in ("origin", "scheme", "meaning", "patient", "confirmed_by", "confirmed_on", "basis")
        ),
        sa.ForeignKeyConstraint(["version"], ["support_versions.version"], name="fk_support_changes_version"),
        sa.PrimaryKeyConstraint("version", "study", "code", name="pk_support_changes"),
    )
    op.create_index("ix_support_changes_study_code_version", "support_changes", ["study", "code", "version"])


def _predictions() -> None:
    key = ("bundle", "support_version", "split_version", "data_version", "batch")
    op.create_table(
        "prediction_runs",
        sa.Column("id", sa.Integer(), nullable=False),
        _text("bundle"),
        sa.Column("support_version", sa.Integer(), nullable=False),
        *(_text(name) for name in ("split_version", "data_version", "batch", "created_at")),
        sa.ForeignKeyConstraint(
            ["support_version"], ["support_versions.version"], name="fk_prediction_runs_support_version"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_prediction_runs"),
        sa.UniqueConstraint(*key, name="uq_prediction_runs_bundle"),
    )
    op.create_index("ix_prediction_runs_batch_created_at", "prediction_runs", ["batch", "created_at"])
    op.create_table(
        "predictions",
        sa.Column("run", sa.Integer(), nullable=False),
        _text("study"),
        sa.Column("entropy", sa.Double(), nullable=False),
        sa.Column("support_patient", sa.Boolean(), nullable=False),
        sa.Column("probabilities", sa.JSON(), nullable=False),
        sa.Column("nearest", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run"], ["prediction_runs.id"], name="fk_predictions_run", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run", "study", name="pk_predictions"),
    )
    op.create_index("ix_predictions_study", "predictions", ["study"])


def _evaluations() -> None:
    op.create_table(
        "openings",
        sa.Column("id", sa.Integer(), nullable=False),
        *(
            _text(name)
            for name in ("bundle", "split_version", "protocol", "first_at", "first_by", "last_at", "last_by")
        ),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_openings"),
        sa.UniqueConstraint("bundle", "split_version", "protocol", name="uq_openings_bundle"),
    )
    key = ("bundle", "protocol", "split_version", "data_version")
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer(), nullable=False),
        *(_text(name) for name in key),
        sa.Column("numbers", sa.JSON(), nullable=False),
        _text("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.UniqueConstraint(*key, name="uq_evaluations_bundle"),
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)
