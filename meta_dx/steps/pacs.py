"""Steps of sources that are archives (PACS): where what comes from them lands, and fetching what is new there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from meta_dx.cohort.fetch import FetchSummary, clear_landed, failed_instances, fetch, landing_folder
from meta_dx.cohort.ingest import IngestOptions, IngestSummary, ingest_folder
from meta_dx.dicom.pacs.address import DicomWebAddress, parse_address
from meta_dx.dicom.pacs.credentials import TOKEN_VARIABLE, USER_VARIABLE
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.progress import Progress, silent
from meta_dx.steps import Project

log = logging.getLogger("meta_dx")

Bar = Callable[[str], AbstractContextManager[Progress]]
_FOR_NOW = ("pacs_unreachable", "pacs_broke_off", "fetch_running")


def source_folders(project: Project) -> dict[str, Path]:
    """Return where the files of each source lie, by the source as the cohort file names it.

    An archive has its landing place in the home, so that what was fetched is found like any new file; nothing
    is asked of the archive itself.
    """
    settings = project.settings
    folders = {str(folder): folder for folder in settings.sources}
    return folders | {a: landing_folder(project.home, a, settings.pacs) for a in settings.addresses}


def fetch_new(
    project: Project, bar: Bar | None = None, *, patient: bool = True, again: bool = False
) -> dict[str, FetchSummary]:
    """Fetch what is new in every archive among the sources; one that fails keeps no other from being asked.

    Parameters
    ----------
    project : Project
        Cohort and home.
    bar : callable, optional
        Makes a progress bar of a title.
    patient : bool
        When an archive cannot be reached for now, warn and go on with what is here.
    again : bool
        Fetch what is here already, too.

    Returns
    -------
    dict of str to FetchSummary
        By address; an archive that could not be reached is absent.

    Raises
    ------
    MetaDxError
        What is wrong with the first archive that failed, when all have been asked: what the others sent has landed,
        and the next ingest takes it in.
    """
    settings = project.settings
    require_one_login(settings.addresses, settings.pacs)
    summaries, faults = {}, []
    for address in settings.addresses:
        try:
            summaries[address] = fetch_from(
                project.home, address, settings.pacs, settings.ingest, bar, again=again
            )
        except MetaDxError as fault:
            if patient and fault.code in _FOR_NOW:
                log.warning("%s", fault)
            else:
                faults.append(fault)
            continue
        failed = sum(summaries[address].failed.values())
        if failed:
            log.warning("%d instances could not be fetched: 'meta-dx fetch' says which and why.", failed)
    _raise_first(faults)
    return summaries


def _raise_first(faults: list[MetaDxError]) -> None:
    for fault in faults[1:]:
        log.warning("%s", fault)
    if len(faults) > 1:
        others = "another archive" if len(faults) == 2 else f"{len(faults) - 1} other archives"
        raise MetaDxError(faults[0].code, f"{faults[0]} This run failed at {others}, too.") from faults[0]
    if faults:
        raise faults[0]


def fetch_from(
    home: Home,
    address: str,
    pacs: PacsOptions,
    ingest: IngestOptions,
    bar: Bar | None = None,
    *,
    again: bool = False,
) -> FetchSummary:
    """Fetch from one archive, under the limits of the ingest (see :func:`meta_dx.cohort.fetch.fetch`)."""
    with nullcontext(silent) if bar is None else bar("fetching studies") as progress:
        return fetch(
            home, address, options=pacs, max_file_bytes=ingest.max_file_bytes, again=again, progress=progress
        )


def take_in_landed(
    home: Home, address: str, pacs: PacsOptions, ingest: IngestOptions, progress: Progress = silent
) -> IngestSummary:
    """Take in what has landed from one archive, and remove it from its landing place.

    Returns
    -------
    IngestSummary
        All zeros when nothing lies there. Files that were received and quarantined do, and are counted each time.
    """
    folder = landing_folder(home, address, pacs)
    clear_landed(home, folder)
    if not any(folder.iterdir()):
        return IngestSummary(0, 0, 0, 0)
    summary = ingest_folder(home, folder, progress=progress, options=ingest)
    clear_landed(home, folder)
    return summary


def fetch_report(home: Home, address: str, summary: FetchSummary, pacs: PacsOptions) -> dict[str, Any]:
    """Return the account of a fetch as plain values, with the instances that failed under their original UIDs."""
    failed = [
        {"study": one.study, "series": one.series, "instance": one.instance, "code": one.state}
        for one in failed_instances(home, address, pacs)
    ]
    return {"source": address, **asdict(summary), "not_fetched": failed}


def clear_source(project: Project, folder: Path) -> None:
    """Remove what an archive landed in a folder and a batch has taken in; other folders are left alone."""
    settings = project.settings
    if folder in [landing_folder(project.home, address, settings.pacs) for address in settings.addresses]:
        clear_landed(project.home, folder)


def require_one_login(addresses: list[str], options: PacsOptions) -> None:
    """Refuse to send the one login of the environment to several servers.

    Raises
    ------
    MetaDxError
        ``bad_credentials``.
    """
    parsed = [parse_address(address, options) for address in addresses]
    hosts = {address.host for address in parsed if isinstance(address, DicomWebAddress)}
    given = any(os.environ.get(name) for name in (TOKEN_VARIABLE, USER_VARIABLE))
    if len(hosts) > 1 and given and not options.credentials:
        raise MetaDxError(
            "bad_credentials",
            f"The cohort file names {len(hosts)} DICOMweb servers and the environment one login: "
            "write a file with one section a server and name it in [pacs] credentials (docs/pacs.md).",
        )
