"""``meta-dx fetch`` and ``meta-dx receive``: studies from archives and modalities."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meta_dx.cli.common import (
    CohortOption,
    HomeOption,
    JsonOption,
    home_root,
    ingest_options,
    project_of,
    settings_at_hand,
)
from meta_dx.cli.output import emit_json, say

if TYPE_CHECKING:
    from meta_dx.cohort.fetch import FetchSummary
    from meta_dx.cohort.ingest import IngestOptions, IngestSummary
    from meta_dx.dicom.pacs.options import PacsOptions
    from meta_dx.home import Home
    from meta_dx.settings import Settings


def fetch(
    source: Annotated[
        str | None,
        typer.Argument(help="dicomweb+https://… or dimse://AET@host:port?…; all of the cohort if absent."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Fetch what is here already, too.")] = False,
    cohort: CohortOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch from archives what is not here yet; the next ingest takes it in."""
    from meta_dx.errors import MetaDxError
    from meta_dx.home import Home
    from meta_dx.progress import bar
    from meta_dx.steps import pacs as step

    if source is not None:
        opened, options = Home.open(home_root(home)), _options(settings_at_hand(cohort, home))
        limits = ingest_options(cohort, home)
        summaries = {source: step.fetch_from(opened, source, options, limits, bar, again=again)}
    else:
        project = project_of(cohort, home)
        if not project.settings.addresses:
            raise MetaDxError("no_archive", "No source of the cohort is an archive: name one (docs/pacs.md).")
        opened, options = project.home, project.settings.pacs
        summaries = step.fetch_new(project, bar, patient=False, again=again)
    reports = [step.fetch_report(opened, name, summary, options) for name, summary in summaries.items()]
    if json:
        emit_json(reports[0] if source is not None else reports)
        return
    for report, summary in zip(reports, summaries.values(), strict=True):
        say_fetched(summary)
        for one in report["not_fetched"]:
            say(f"        {one['code']}: study {one['study']}, instance {one['instance']}")
    say(f"What landed in {opened.root} is taken in by the next ingest")


def receive(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 11112,
    ae_title: Annotated[str, typer.Option(help="How the listener calls itself.")] = "META_DX",
    allow: Annotated[
        list[str] | None, typer.Option(help="AE title that may send; several times. Needed off the loopback.")
    ] = None,
    cohort: CohortOption = None,
    home: HomeOption = None,
) -> None:
    """Listen for studies that are sent by C-STORE, until Ctrl-C; the source 'received:' takes them in."""
    from meta_dx.cohort.fetch import alone_in, landing_of
    from meta_dx.dicom.pacs.address import ReceivedAddress
    from meta_dx.dicom.pacs.receive import ListenerOptions, listening
    from meta_dx.home import Home

    options = ListenerOptions(host, port, ae_title, tuple(allow or ()))
    largest = ingest_options(cohort, home).max_file_bytes
    landing = landing_of(Home.open(home_root(home)), ReceivedAddress(), largest)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with alone_in(landing), listening(landing, options) as listener:
        say(f"{ae_title} listens on {host} port {listener.port}; Ctrl-C ends it")
        ended.wait()
    say(f"received {listener.counts['received']} instances, refused {listener.counts['refused']}")


def take_in_from(
    source: str, home: Home, limits: IngestOptions, cohort: Path | None
) -> tuple[FetchSummary, IngestSummary]:
    """Fetch from an archive and take in what has landed, for ``meta-dx ingest``."""
    from meta_dx.progress import bar
    from meta_dx.steps import pacs as step

    options = _options(settings_at_hand(cohort, home.root))
    fetched = step.fetch_from(home, source, options, limits, bar)
    with bar("reading files") as progress:
        return fetched, step.take_in_landed(home, source, options, limits, progress)


def say_fetched(summary: FetchSummary) -> None:
    """Write the account of a fetch for a person."""
    failed = sum(summary.failed.values())
    say(
        f"found {summary.found} in {summary.studies} studies = fetched {summary.fetched} "
        f"+ already here {summary.already_here} + failed {failed}"
    )
    if summary.changed:
        say(f"      {summary.changed} of the fetched ones had changed in the archive")
    for code, count in sorted(summary.failed.items()):
        say(f"        {code}: {count}")


def _options(settings: Settings | None) -> PacsOptions:
    from meta_dx.dicom.pacs.options import PacsOptions

    return PacsOptions() if settings is None else settings.pacs
