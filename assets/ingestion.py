"""Group ``ingestion``: studies and diagnoses come into the home, under surrogate identities."""

import dagster as dg

from assets.common import DATA_TEAM, table
from assets.faults import asset
from assets.partitions import ingest_batches
from assets.project import MetaDx

#: Raise when the same input would give other catalog rows than before.
_CODE_VERSION = "2"


@asset(
    group_name="ingestion",
    owners=DATA_TEAM,
    kinds={"dicom"},
    code_version=_CODE_VERSION,
)
def fetched_instances(meta_dx: MetaDx) -> dg.MaterializeResult:
    """What the archives (PACS) among the sources hold that was not here yet: files, of which the next batch is made.

    Found = fetched + already here + failed. An archive that cannot be reached fails the run when all have been asked;
    what the others sent is taken in all the same, and the next run goes on from there.
    """
    from meta_dx.progress import bar
    from meta_dx.steps.pacs import fetch_new

    summaries = fetch_new(meta_dx.open(), bar, patient=False)
    accounts = [
        {
            "archive": number,
            **{name: getattr(one, name) for name in ("found", "fetched", "already_here", "changed")},
        }
        for number, one in enumerate(summaries.values(), start=1)
    ]
    failed = [
        {"archive": number, "code": code, "instances": n}
        for number, one in enumerate(summaries.values(), start=1)
        for code, n in one.failed.items()
    ]
    return dg.MaterializeResult(metadata={"archives": table(accounts), "failed": table(failed)})


@asset(
    group_name="ingestion",
    partitions_def=ingest_batches,
    owners=DATA_TEAM,
    kinds={"dicom", "parquet"},
    code_version=_CODE_VERSION,
)
def ingested_batch(context: dg.AssetExecutionContext, meta_dx: MetaDx) -> dg.MaterializeResult:
    """One batch of DICOM files: objects and catalog rows, or a code and a reason for every file not taken.

    Found = accepted + duplicates + not DICOM + rejected. Identities are surrogates from here on.
    """
    from meta_dx.progress import bar
    from meta_dx.steps import incoming

    project = meta_dx.open()
    with bar("reading files") as progress:
        summary = incoming.take_in(project, context.partition_key, progress)
    return dg.MaterializeResult(
        metadata={
            "found": summary.found,
            "accepted": summary.accepted,
            "duplicates": summary.duplicates,
            "not_dicom": summary.not_dicom,
            "rejected": table([{"code": code, "files": n} for code, n in sorted(summary.rejected.items())]),
            "studies": summary.studies,
            "patients": summary.patients,
        },
    )


@asset(
    group_name="ingestion",
    deps=[ingested_batch],
    owners=DATA_TEAM,
    kinds={"parquet"},
    code_version=_CODE_VERSION,
)
def diagnosis_table(meta_dx: MetaDx) -> dg.MaterializeResult:
    """The confirmed diagnoses, joined to studies by surrogate; studies without one are kept for prediction."""
    from meta_dx.steps import incoming

    summary = incoming.take_in_diagnoses(meta_dx.open())
    return dg.MaterializeResult(
        metadata={
            "rows": summary.rows,
            "studies": summary.studies,
            "diseases": summary.diseases,
            "unknown_studies": summary.unknown_studies,
            "undiagnosed_studies": summary.undiagnosed_studies,
        },
        data_version=dg.DataVersion(summary.version),
    )


ASSETS = [fetched_instances, ingested_batch, diagnosis_table]
