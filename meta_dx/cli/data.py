"""Commands of the data: ``init``, ``phantom``, ``from-images``, ``ingest``, ``validate``, ``split``."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from meta_dx.cli.common import (
    AllowOption,
    CohortOption,
    HomeOption,
    JsonOption,
    existing_home,
    home_root,
    ingest_options,
    project_of,
    take_in_new,
)
from meta_dx.cli.output import emit_json, say, table
from meta_dx.errors import MetaDxError

split_app = typer.Typer(
    help="The frozen split of common, validation and rare diseases.", no_args_is_help=True
)


def init(
    out: Annotated[Path, typer.Argument(help="File to write.")] = Path("cohort.toml"),
) -> None:
    """Write a commented cohort.toml to fill in."""
    from meta_dx.home import write_text

    if out.exists():
        raise MetaDxError("file_exists", f"{out} exists already: choose another name, or edit it.")
    write_text(out, resources.files("meta_dx").joinpath("cohort_template.toml").read_text())
    say(f"Wrote {out}. Fill in [cohort] name, sources and diagnoses, then: make run COHORT={out}")


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    seed: Annotated[int, typer.Option(help="Another seed, other diseases and patients.")] = 0,
    diseases: Annotated[
        int | None, typer.Option(help="Number of invented diseases: 64, or 16 with --volumes.")
    ] = None,
    without: Annotated[
        str | None, typer.Option(help="Draw this trait family at random for everybody.")
    ] = None,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Do nothing when the cohort is there.")
    ] = False,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="CT series of up to 16 diseases instead of pictures.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write a synthetic cohort of invented diseases as DICOM studies, for demonstrations and tests."""
    from meta_dx.dicom.phantom import PhantomSummary, write_phantom
    from meta_dx.dicom.phantom.volumes import VolumePhantomSummary, write_volume_phantom
    from meta_dx.progress import bar

    if if_missing and (out / "diagnoses.csv").exists():
        if json:
            emit_json({"written": False})
        return
    if volumes and without:
        raise MetaDxError("bad_option", "--without chooses among the families of pictures: leave it out.")
    summary: PhantomSummary | VolumePhantomSummary
    with bar("drawing studies") as progress:
        if volumes:
            summary = write_volume_phantom(out, seed=seed, diseases=diseases or 16, progress=progress)
        else:
            summary = write_phantom(
                out, seed=seed, diseases=diseases or 64, without=without, progress=progress
            )
    if json:
        emit_json(vars(summary))
    else:
        say(
            f"Wrote {summary.files} files of {summary.studies} studies, {summary.diseases} diseases, to {out}"
        )


def from_images(
    csv: Annotated[
        Path, typer.Argument(help="Table: path, patient, diagnosis; optional study, age, sex, site, date.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    json: JsonOption = False,
) -> None:
    """Turn picture files and a table into a DICOM cohort with diagnoses.csv."""
    from meta_dx.dicom.from_images import images_to_dicom
    from meta_dx.progress import bar

    with bar("converting pictures") as progress:
        summary = images_to_dicom(csv, out, progress=progress)
    if json:
        emit_json(vars(summary))
    else:
        say(
            f"Wrote {summary.images} pictures as {summary.studies} studies, {summary.diseases} diseases, to {out}"
        )


def ingest(
    source: Annotated[
        str, typer.Argument(help="Folder (searched recursively), zip, tar, DICOMDIR, or address of a PACS.")
    ],
    allow: AllowOption = None,
    cohort: CohortOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Take in DICOM files: objects and catalog, a code and a reason for every file not taken."""
    from meta_dx.cli.pacs import say_fetched, take_in_from
    from meta_dx.cohort.fetch import FetchSummary
    from meta_dx.cohort.ingest import ingest_folder
    from meta_dx.dicom.pacs.address import is_address
    from meta_dx.dicom.quarantine import QUARANTINED
    from meta_dx.home import Home
    from meta_dx.progress import bar

    opened = Home.open(home_root(home))
    known = ingest_options(cohort, opened.root)
    options = replace(known, allow=tuple(allow or known.allow))
    fetched: FetchSummary | None = None
    if is_address(source):
        fetched, summary = take_in_from(source, opened, options, cohort)
    else:
        with bar("reading files") as progress:
            summary = ingest_folder(opened, source, progress=progress, options=options)
    if json:
        emit_json({**asdict(summary), **({"fetch": asdict(fetched)} if fetched is not None else {})})
        return
    if fetched is not None:
        say_fetched(fetched)
    say(f"found {summary.found} = accepted {summary.accepted} + duplicates {summary.duplicates}")
    say(f"      + not DICOM {summary.not_dicom} + rejected {sum(summary.rejected.values())}")
    for code, count in sorted(summary.rejected.items()):
        say(f"        {code}: {count}")
    if kinds := [code for code in summary.rejected if code in QUARANTINED]:
        say(_advice(source, kinds))
    say(
        f"{summary.studies} studies of {summary.patients} patients in {opened.root} after {summary.seconds:.1f} s"
    )


def _advice(source: str, kinds: list[str]) -> str:
    """Say what to do with quarantined pictures."""
    from meta_dx.dicom.pacs.address import ReceivedAddress, is_address, parse_address

    allow = " ".join(f"--allow {kind}" for kind in kinds)
    if not is_address(source) or isinstance(parse_address(source), ReceivedAddress):
        return (
            f"Look at some of the quarantined ones ('meta-dx rejections' lists them); take them with {allow}"
        )
    return (
        "The quarantined ones are not kept: look at some of them in the archive. To take them, fetch them again with "
        f"'meta-dx fetch --again' and this source, then ingest with {allow}"
    )


def validate(
    accept: Annotated[
        str | None, typer.Option(help="Accept this batch although a blocking check failed; needs --reason.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why a batch is accepted; kept.")] = "",
    cohort: CohortOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Take in what is new, check every batch and the diagnosis table, and write the Data Docs."""
    from meta_dx.cohort.catalog import Catalog
    from meta_dx.steps import incoming

    if reason and accept is None:
        raise MetaDxError("no_batch", "--reason says why a batch is accepted: name it with --accept, too.")
    project = project_of(cohort, home)
    if accept is not None:
        incoming.accept(project, accept, reason)
    take_in_new(project)
    reports = [incoming.validate(project, batch) for batch in Catalog(project.home).batches()]
    if project.settings.cohort.diagnoses:
        incoming.take_in_diagnoses(project)
        reports.append(incoming.validate_diagnoses(project))
    results = [result for report in reports for result in report.results]
    if json:
        named = incoming.with_originals(project, results)
        emit_json({"data_docs": str(reports[-1].data_docs), "results": [vars(result) for result in named]})
    else:
        failed = [r for r in results if not r.passed]
        rows = [[r.severity, r.name, r.batch, r.failed, r.checked] for r in failed]
        table(["severity", "check", "batch", "failed", "of"], rows)
        say(
            f"{len(results) - len(failed)} of {len(results)} checks passed. Data Docs: {reports[-1].data_docs}"
        )
    accepted = incoming.accepted_batches(project)
    for report in reports:
        if report.batch not in accepted:
            incoming.require_blocking(report)


@split_app.command("show")
def split_show(home: HomeOption = None, json: JsonOption = False) -> None:
    """Show the frozen split: its version and the diseases of each role."""
    from meta_dx.cohort.splits import ROLES, current_split
    from meta_dx.home import Home

    opened = Home.open(existing_home(home))
    split = current_split(opened)
    if split is None:
        raise MetaDxError(
            "no_split", f"The home {opened.root} has no frozen split yet: run 'make run' or 'meta-dx train'."
        )
    if json:
        emit_json({"version": split.version, "lineage": split.lineage, "diseases": split.diseases})
        return
    say(f"split {split.version} (comparable since {split.lineage})")
    for role in ROLES:
        codes = split.codes(role)
        say(f"{role:<11}{len(codes):>4} diseases: {', '.join(codes[:12])}{' …' if len(codes) > 12 else ''}")


@split_app.command("thaw")
def split_thaw(
    reason: Annotated[str, typer.Option(help="Why; kept for those who wonder later.")],
    home: HomeOption = None,
) -> None:
    """End the frozen split. The next run draws a new one; figures from before are no longer comparable."""
    from meta_dx.cohort.splits import thaw_split
    from meta_dx.home import Home

    version = thaw_split(Home.open(existing_home(home)), reason)
    say(
        f"Split {version} is thawed. The next training freezes a new one; earlier figures are not comparable with it."
    )
