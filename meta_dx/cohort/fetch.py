"""Fetch: from an archive to files in the home's private landing place, each of them accounted for.

What lands there is taken in by the ordinary ingest and then removed. A cursor in the identity vault remembers what
was fetched; see ``docs/pacs.md``.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from meta_dx.cohort.catalog import Catalog
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.pacs.address import Address, DicomWebAddress, DimseAddress, ReceivedAddress, parse_address
from meta_dx.dicom.pacs.archive import Archive, FetchFailure, ListedInstance, ListedStudy
from meta_dx.dicom.pacs.credentials import credentials_of
from meta_dx.dicom.pacs.landing import Landing, PartialFile
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.dicom.quarantine import QUARANTINED
from meta_dx.dicom.rejections import RejectionCode
from meta_dx.dicom.sources import found_files
from meta_dx.errors import MetaDxError
from meta_dx.home import Home, storage_faults
from meta_dx.records.fetched import FetchedInstance, FetchLog, SettledStudy
from meta_dx.records.vault import Vault

log = logging.getLogger("meta_dx")

Progress = Callable[[int, int], None]
"""Called with the studies done and the studies to do."""

_LANDED, _WANTED = "landed", "wanted"
_MANY_UNAVAILABLE = 5
_OF_ONE_STUDY = ("pacs_unreachable", "pacs_refused", "pacs_answer", "pacs_broke_off")
_AT_ONCE = 500
_SECONDS_AT_ONCE = 10.0
_FETCHED_NAME = re.compile(r"[0-9a-f]{32}\.dcm")
_MAX_BYTES = 2 << 30


@dataclass(frozen=True)
class FetchSummary:
    """What became of the instances that an archive lists: found = fetched + already_here + all failed.

    Parameters
    ----------
    found : int
        Instances that the archive lists and the filters let through.
    fetched : int
        Instances that landed in this run.
    already_here : int
        Instances that an earlier run fetched, as the archive describes them now.
    failed : dict of str to int
        Instances that were not fetched, by code (:class:`~meta_dx.dicom.pacs.archive.FetchFailure`).
    changed : int
        Of the fetched ones, those that an earlier run had fetched as the archive described them then.
    studies : int
        Studies that the archive lists and the filters let through.
    """

    found: int = 0
    fetched: int = 0
    already_here: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    changed: int = 0
    studies: int = 0

    def __post_init__(self) -> None:
        if self.found != self.fetched + self.already_here + sum(self.failed.values()):
            raise RuntimeError("an instance that was found is not accounted for")


def landing_folder(home: Home, source: str, options: PacsOptions | None = None) -> Path:
    """Return the folder where what comes from an address lands, created for its owner only.

    Two addresses of one server share it.

    Raises
    ------
    MetaDxError
        From :func:`~meta_dx.dicom.pacs.address.parse_address`, or a storage fault.
    """
    return landing_of(home, parse_address(source, options)).folder


def landing_of(home: Home, address: Address, max_bytes: int = _MAX_BYTES) -> Landing:
    """Return the landing place of an address; its name tells nobody which server it is."""
    if isinstance(address, ReceivedAddress):
        return Landing(home, address.server, max_bytes)
    with closing(Vault.open(home)) as vault:
        return Landing(home, Surrogates(vault.key).file(address.server), max_bytes)


def fetch(
    home: Home,
    source: str,
    *,
    options: PacsOptions | None = None,
    max_file_bytes: int = _MAX_BYTES,
    again: bool = False,
    progress: Progress | None = None,
) -> FetchSummary:
    """Fetch from an archive what is not here yet.

    Parameters
    ----------
    home : Home
        The home.
    source : str
        Address of the archive, filters included.
    options : PacsOptions, optional
        Section ``[pacs]``.
    max_file_bytes : int
        Limit of one instance.
    again : bool
        Fetch what is here already, too.
    progress : callable, optional
        Called with the studies done and the studies to do.

    Returns
    -------
    FetchSummary
        Everything that the archive lists is in it. For ``received:`` nothing is fetched, and it is empty.

    Raises
    ------
    MetaDxError
        What is wrong with the address, the login, the archive (``pacs_…``) or the disk. What has landed until then
        is kept, and the same call goes on from there.
    """
    options = options or PacsOptions()
    address = parse_address(source, options)
    landing = landing_of(home, address, max_file_bytes)
    if isinstance(address, ReceivedAddress):
        clear_landed(home, landing.folder)
        return FetchSummary()
    with alone_in(landing), FetchLog(home) as cursor:
        landing.clear_unfinished()
        clear_landed(home, landing.folder)
        archive = _opened(address, options, landing)
        try:
            with closing(Vault.open(home)) as vault:
                surrogates = Surrogates(vault.key)
            run = _Run(archive, landing, cursor, surrogates, source, address, options, again)
            return run.everything(progress)
        finally:
            archive.close()


def failed_instances(home: Home, source: str, options: PacsOptions | None = None) -> list[FetchedInstance]:
    """List the instances that could not be fetched from a server the last time, under their original UIDs."""
    with FetchLog(home) as cursor:
        return cursor.failed(parse_address(source, options).server)


def clear_landed(home: Home, folder: Path) -> int:
    """Remove landed files that a finished batch has dealt with: what was accepted lies in the objects store.

    An instance that turned out to be another one than was asked for, or cut off, is entered as failed, and fetched
    again.

    Returns
    -------
    int
        How many were removed. A file that no finished batch has read stays, and so does one that was received and
        quarantined: nobody sends it again when its kind is allowed.
    """
    landed = found_files(folder)
    with closing(Vault.open(home)) as vault:
        known, surrogates = vault.files(file.name for file in landed), Surrogates(vault.key)
    finished, done = set(Catalog(home).batches()), []
    wrong: dict[str, FetchFailure] = {}
    for file in landed:
        record = known.get(file.name)
        if record is None or record.batch not in finished:
            continue
        if (record.size, record.mtime_ns) != (file.size, file.mtime_ns):
            continue
        fetched = _FETCHED_NAME.fullmatch(file.path.name)
        if not fetched and record.code in QUARANTINED:
            continue
        done.append(file.path)
        if not fetched:
            continue
        taken = record.outcome in ("accepted", "duplicate")
        if taken and file.path.name != _landed_name(surrogates, str(record.surrogate)):
            wrong[file.path.name] = FetchFailure.ANOTHER_SENT
        elif record.code == RejectionCode.TRUNCATED:  # some servers end a body early and nothing shows it
            wrong[file.path.name] = FetchFailure.CUT_OFF
    for failure in sorted(set(wrong.values())):  # while the files are there: who is killed now does it again
        _disown(home, surrogates, {name for name, one in wrong.items() if one is failure}, failure)
    for path in done:
        with storage_faults(folder):
            path.unlink(missing_ok=True)
    return len(done)


def _disown(home: Home, surrogates: Surrogates, names: set[str], failure: FetchFailure) -> None:
    """Enter landed files, by their names, as failed."""
    log.warning("%d fetched instances will be fetched again (%s): %s", len(names), failure, failure.sentence)
    with FetchLog(home) as cursor:
        cursor.disown(lambda uid: _landed_name(surrogates, surrogates.uid(uid)) in names, failure)


@contextmanager
def alone_in(landing: Landing) -> Iterator[None]:
    """Hold the lock of a landing place; who comes second is told so. The system frees it when we die."""
    path = landing.folder.with_name(f"{landing.folder.name}.lock")
    with storage_faults(path), path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise MetaDxError(
                "fetch_running",
                "Another process is fetching from, or receiving for, this source: wait until it ends.",
            ) from fault
        yield


def _opened(address: DicomWebAddress | DimseAddress, options: PacsOptions, landing: Landing) -> Archive:
    # Imported here: commands that fetch nothing need neither library.
    if isinstance(address, DicomWebAddress):
        from meta_dx.dicom.pacs.dicomweb import DicomWebArchive

        return DicomWebArchive(address, options, credentials_of(address, options), landing)
    from meta_dx.dicom.pacs.dimse import DimseArchive

    return DimseArchive(address, options, landing)


class _Run:
    """One run over one address."""

    def __init__(
        self,
        archive: Archive,
        landing: Landing,
        cursor: FetchLog,
        surrogates: Surrogates,
        source: str,
        address: DicomWebAddress | DimseAddress,
        options: PacsOptions,
        again: bool,
    ) -> None:
        self._archive, self._landing, self._log, self._surrogates = archive, landing, cursor, surrogates
        self._address, self._server, self._filters = source, address.server, address.filters
        self._options, self._again = options, again
        self._counts: Counter[str] = Counter()
        self._failed: Counter[FetchFailure] = Counter()
        self._unavailable = self._unlistable = 0
        self._outcomes: list[FetchedInstance] = []
        self._settled: list[SettledStudy] = []
        self._entered = time.monotonic()

    def everything(self, progress: Progress | None) -> FetchSummary:
        """Look into every study and return the account."""
        studies, unusable = self._archive.studies()
        self._failed[FetchFailure.BAD_LISTING] += unusable
        try:
            for done, study in enumerate(sorted(studies, key=lambda study: study.uid), start=1):
                settled = self._log.settled(self._address, study.uid, study.mark, self._options.recheck_days)
                if settled is None or self._again:
                    self._study(study)
                else:
                    self._counts["already"] += settled
                if progress is not None:
                    progress(done, len(studies))
                if len(self._outcomes) >= _AT_ONCE or time.monotonic() > self._entered + _SECONDS_AT_ONCE:
                    self._enter()
        finally:
            self._enter()
        counts, failed = self._counts, {code.value: n for code, n in sorted(self._failed.items()) if n}
        return FetchSummary(
            found=counts["fetched"] + counts["already"] + sum(failed.values()),
            fetched=counts["fetched"],
            already_here=counts["already"],
            failed=failed,
            changed=counts["changed"],
            studies=len(studies),
        )

    def _enter(self) -> None:
        """Enter what has landed into the cursor, when it is on the disk.

        Once for many studies: to wait for the disk takes long. A run that is killed before finds what had landed
        by what it had wanted.
        """
        if self._outcomes:
            os.sync()
            self._log.record(self._server, self._outcomes)
        if self._settled:
            self._log.settle(self._address, self._settled)
        self._outcomes, self._settled, self._entered = [], [], time.monotonic()

    def _study(self, study: ListedStudy) -> None:
        try:
            listing = self._archive.instances(study)
        except MetaDxError as fault:
            # One study that the archive cannot list, for a file that it lost, say, must not end the night; several in
            # a row are an archive that has gone.
            self._unlistable += 1
            if fault.code not in _OF_ONE_STUDY or self._unlistable >= _MANY_UNAVAILABLE:
                raise
            self._failed[FetchFailure.NOT_LISTED] += study.instances or 1
            self._log.unsettle(self._address, study.uid)
            return
        self._unlistable = 0
        self._failed[FetchFailure.BAD_LISTING] += listing.unusable
        known = self._log.instances(self._server, study.uid)
        wanted = [
            one for one in listing.instances if self._again or not self._is_here(one, known.get(one.uid))
        ]
        self._counts["already"] += len(listing.instances) - len(wanted)
        failures = self._take(wanted, known) if wanted else {}
        # With a filter on series the study's own count says nothing.
        whole = not (self._filters.modalities or self._filters.body_part)
        here = len(listing.instances) + listing.unusable
        unseen = max(listing.missing, (study.instances or 0) - here if whole else 0)
        self._failed[FetchFailure.NOT_LISTED] += unseen
        if failures or listing.unusable or unseen:
            self._log.unsettle(self._address, study.uid)
        else:
            count = len(listing.instances)
            self._settled.append(SettledStudy(study.uid, study.mark, count, changed=bool(wanted)))

    def _is_here(self, instance: ListedInstance, known: FetchedInstance | None) -> bool:
        if known is None or known.mark != instance.mark:
            return False
        # A run that was killed leaves what it wanted, and what had landed by then.
        landed = known.state == _WANTED and (self._landing.folder / self._name(instance)).exists()
        return known.state == _LANDED or landed

    def _take(
        self, wanted: list[ListedInstance], known: dict[str, FetchedInstance]
    ) -> dict[ListedInstance, FetchFailure]:
        self._log.record(self._server, (_record(one, _WANTED) for one in wanted))
        for one in wanted:  # what is left of an earlier description must not pass for this one
            with storage_faults(self._landing.folder):
                (self._landing.folder / self._name(one)).unlink(missing_ok=True)
        outcomes: dict[ListedInstance, FetchFailure | None] = {}
        try:
            for instance, failure in self._archive.retrieve(wanted, self._land):
                outcomes[instance] = failure
                self._unavailable = self._unavailable + 1 if failure is FetchFailure.UNAVAILABLE else 0
                if self._unavailable >= _MANY_UNAVAILABLE:
                    raise MetaDxError(
                        "pacs_unreachable",
                        "The archive cannot be reached any more, or is too busy: run the same command again later; "
                        "it goes on from here.",
                    )
        finally:
            self._outcomes += [_record(one, code or _LANDED) for one, code in outcomes.items()]
        failures = {one: code for one, code in outcomes.items() if code is not None}
        self._failed.update(failures.values())
        landed = [one for one in outcomes if one not in failures]
        self._counts["fetched"] += len(landed)
        before = ((one.mark, known[one.uid]) for one in landed if one.uid in known)
        self._counts["changed"] += sum(one.state == _LANDED and one.mark != mark for mark, one in before)
        return failures

    def _land(self, instance: ListedInstance, file: PartialFile) -> None:
        file.keep(self._name(instance))

    def _name(self, instance: ListedInstance) -> str:
        return _landed_name(self._surrogates, self._surrogates.uid(instance.uid))


def _landed_name(surrogates: Surrogates, instance: str) -> str:
    """Return the file name for the surrogate of an instance, so that what arrived can be held against it."""
    return f"{surrogates.digest(instance.encode())[:32]}.dcm"


def _record(instance: ListedInstance, state: str) -> FetchedInstance:
    return FetchedInstance(instance.study, instance.series, instance.uid, instance.mark, str(state))
