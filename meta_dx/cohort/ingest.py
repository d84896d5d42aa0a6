"""Ingest: from files to objects and catalog, in batches, with every file accounted for.

While files are read, objects are written and the vault learns the identities and what became of every file. When
all of that is on the disk, one rename makes the batch's tables visible. Until that rename the batch does not exist,
so a process that dies anywhere and runs again ends with the same bytes as one that ran through. See
``docs/ingest.md``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from meta_dx.cohort.catalog import Catalog, clear_unfinished, write_batch
from meta_dx.cohort.ingest_options import IngestOptions
from meta_dx.cohort.ledger import Ledger
from meta_dx.cohort.objects import ObjectStore
from meta_dx.cohort.scans import NewFiles, Scan, require_dicom_in, scanned, without_dicom
from meta_dx.cohort.seen import Taken
from meta_dx.cohort.tables import fits
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.mixed_studies import reading_order
from meta_dx.dicom.pool import Pool, read_all, reading_pool
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sources import FoundFile, checked_source
from meta_dx.home import Home, storage_faults
from meta_dx.records.vault import Vault

__all__ = [
    "Batch",
    "IngestOptions",
    "IngestSummary",
    "Progress",
    "ingest_batch",
    "ingest_folder",
    "instances_under",
    "mended_files",
    "plan_batches",
    "require_dicom",
]

Progress = Callable[[int, int], None]
"""Called with the files done and the files to do."""


@dataclass(frozen=True)
class Batch:
    """Files of one source that are taken in together.

    Parameters
    ----------
    id : str
        ``"b0001"`` and so on.
    source : Path
        The folder, archive or DICOMDIR.
    """

    id: str
    source: Path


@dataclass(frozen=True)
class IngestSummary:
    """What became of the files: found = accepted + duplicates + not_dicom + all rejected.

    Parameters
    ----------
    found : int
        Files that were found.
    accepted : int
        Instances that are new in the home.
    duplicates : int
        Files whose instance, with the same content, was in the home already.
    not_dicom : int
        Files that are no DICOM.
    rejected : dict of str to int
        DICOM files that were not taken, by code (:class:`~meta_dx.dicom.rejections.RejectionCode`).
    studies, patients : int
        Distinct studies and patients that the accepted files and the duplicates belong to.
    seconds : float
        How long it took.
    """

    found: int
    accepted: int
    duplicates: int
    not_dicom: int
    rejected: dict[str, int] = field(default_factory=dict)
    studies: int = 0
    patients: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.found != self.accepted + self.duplicates + self.not_dicom + sum(self.rejected.values()):
            raise RuntimeError("a file that was found is not accounted for")


def plan_batches(home: Home, sources: Sequence[Path | str], allow: Collection[str] = ()) -> list[Batch]:
    """Decide which batches there are to ingest.

    Parameters
    ----------
    home : Home
        The home.
    sources : sequence of Path or str
        The source folders.
    allow : collection of str
        :attr:`IngestOptions.allow`: files that were quarantined as one of these kinds count as new.

    Returns
    -------
    list of Batch
        One for each source with files that are new or changed; a batch that was planned before and never
        finished comes back under its old identifier. None for a source without anything new, or in which
        no file is DICOM.

    Raises
    ------
    MetaDxError
        ``source_missing``, ``source_not_folder``, ``source_unreadable``, or a storage fault.
    """
    with closing(Vault.open(home)) as vault:
        finished = set(Catalog(home).batches())
        scans = [scanned(home, vault, checked_source(source), finished, allow) for source in sources]
        return _planned(vault, finished, {scan.source: scan for scan in scans})


def require_dicom(home: Home, source: Path | str) -> None:
    """Refuse a folder in which there is nothing to take in.

    Raises
    ------
    MetaDxError
        ``source_empty`` or ``source_without_dicom``; also what is wrong with the folder itself.
    """
    with closing(Vault.open(home)) as vault:
        require_dicom_in(scanned(home, vault, checked_source(source), set(Catalog(home).batches()), ()))


def ingest_batch(
    home: Home,
    batch: Batch,
    *,
    progress: Progress | None = None,
    executor: Executor | None = None,
    options: IngestOptions | None = None,
) -> IngestSummary:
    """Ingest one planned batch.

    Parameters
    ----------
    home : Home
        The home.
    batch : Batch
        As :func:`plan_batches` returned it. Nothing happens to one that is finished; its summary is returned.
    progress : callable, optional
        Called with the files done and the files to do.
    executor : concurrent.futures.Executor, optional
        Where files are read; default the process itself, or ``options.workers`` processes. What comes out is
        the same.
    options : IngestOptions, optional
        Limits and number of processes.

    Returns
    -------
    IngestSummary
        Of this batch. Files are taken in the order of their paths: of two that exclude each other, the first
        is accepted.

    Raises
    ------
    MetaDxError
        A storage fault, or ``source_missing``; the home is as it was, and the same call finishes the work.
    """
    begun = time.monotonic()
    with _alone(home):
        catalog, objects = Catalog(home), ObjectStore(home)
        if batch.id not in catalog.batches():
            clear_unfinished(home)
            objects.clear_unfinished()
            with closing(Vault.open(home)) as vault:
                _ingest(home, batch, vault, executor, options or IngestOptions(), progress)
        counts = catalog.summary(batch.id)
    names = ("found", "accepted", "duplicates", "not_dicom", "rejected", "studies", "patients")
    return IngestSummary(**{name: counts[name] for name in names}, seconds=time.monotonic() - begun)


def ingest_folder(
    home: Home,
    source: Path | str,
    *,
    progress: Progress | None = None,
    executor: Executor | None = None,
    options: IngestOptions | None = None,
) -> IngestSummary:
    """Ingest what is new in a folder and account for everything in it.

    Parameters
    ----------
    home : Home
        The home.
    source : Path or str
        The folder.
    progress, executor, options
        As for :func:`ingest_batch`.

    Returns
    -------
    IngestSummary
        Of all files in the folder. A file that an earlier run accepted counts as a duplicate now; one that it
        refused is counted under the same code again, without being read.

    Raises
    ------
    MetaDxError
        ``source_empty`` or ``source_without_dicom``; also what :func:`plan_batches` and :func:`ingest_batch`
        raise.
    """
    begun = time.monotonic()
    options = options or IngestOptions()
    folder = checked_source(source)
    with closing(Vault.open(home)) as vault:
        finished = set(Catalog(home).batches())
        scan = scanned(home, vault, folder, finished, options.allow)
        require_dicom_in(scan)
        batches = _planned(vault, finished, {folder: scan})
        if batches:
            del scan  # of a large tree it is large, and the ingest of the batch makes its own
            for batch in batches:
                ingest_batch(home, batch, progress=progress, executor=executor, options=options)
            scan = scanned(home, vault, folder, set(Catalog(home).batches()), options.allow)
        summary = _account(home, scan, {batch.id for batch in batches}, begun)
    if summary.found == summary.not_dicom:  # something began like DICOM, and was none
        raise without_dicom(folder, summary.found)
    return summary


def instances_under(home: Home, folder: Path | str) -> frozenset[str]:
    """Return the surrogate UIDs of the instances that lie in a source, whenever they were taken in."""
    with closing(Vault.open(home)) as vault:
        scan = scanned(home, vault, checked_source(folder), (), ())
        taken = ("accepted", "duplicate")
        records = scan.known.records(scan.files)
        return frozenset(one.surrogate for one in records if one.surrogate and one.outcome in taken)


def mended_files(home: Home, batch: str) -> frozenset[str]:
    """Return the refused files of a batch that a later batch has taken in from the same place.

    Parameters
    ----------
    home : Home
        The home.
    batch : str
        The batch that refused them.

    Returns
    -------
    frozenset of str
        Their names in the table of rejections. A file that was refused again, or that is gone, is not among
        them: nothing says that its images arrived.
    """
    catalog = Catalog(home)
    finished, rejections = set(catalog.batches()) - {batch}, catalog.rejections([batch])
    refused = rejections.loc[rejections["outcome"] == "rejected", "file"]
    with closing(Vault.open(home)) as vault:
        places = vault.originals("file", refused)
        known = vault.files(places.values())
    newest = {file: known[place] for file, place in places.items() if place in known}
    taken = ("accepted", "duplicate")
    return frozenset(
        f for f, record in newest.items() if record.batch in finished and record.outcome in taken
    )


def _planned(vault: Vault, finished: set[str], scans: Mapping[Path, Scan]) -> list[Batch]:
    """Return the batches that there are to ingest; new ones are written down."""
    batches = []
    with vault.transaction():
        planned = vault.batches()
        waiting = {Path(batch.source): batch.id for batch in planned if batch.id not in finished}
        numbers = [int(name[1:]) for name in {batch.id for batch in planned} | finished]
        for folder, scan in scans.items():
            name = waiting.get(folder)
            new = name is None and any(True for _ in scan.known.new(scan.files))
            if new and scan.known.holds_dicom(scan.files):
                numbers.append(max(numbers, default=0) + 1)
                name = f"b{numbers[-1]:04d}"
                vault.add_batch(name, str(folder))
            if name is not None:
                batches.append(Batch(name, folder))
    return sorted(batches, key=lambda batch: batch.id)


def _ingest(
    home: Home,
    batch: Batch,
    vault: Vault,
    executor: Executor | None,
    options: IngestOptions,
    progress: Progress | None,
) -> None:
    catalog, objects = Catalog(home), ObjectStore(home)
    source = checked_source(batch.source)
    scan = scanned(home, vault, source, set(catalog.batches()), options.allow)
    ledger = Ledger(batch.id, Surrogates(vault.key), catalog, vault)
    with reading_pool(executor, options.workers) as pool:
        files = NewFiles(scan, ledger, vault.key, options.limits, pool)
        read = partial(_read, ledger=ledger, objects=objects, key=vault.key, pool=pool)
        for done, _ in enumerate(read(files, options.limits), start=1):
            if progress is not None:
                progress(done, files.total)
        if ledger.mixed.patients:
            ledger.keep()  # so that the vault knows which file an instance came from
            back = ledger.take_back()
            again = _each_once([*ledger.waiting, *files.taken_as(back)])
            for name in back.values():
                objects.remove(name)
            again.sort(key=reading_order)
            for _ in read(again, replace(options.limits, patients=ledger.mixed.patients)):
                pass
    objects.flush()
    with vault.transaction():
        vault.forget_files(files.gone)
        ledger.keep()
    write_batch(home, batch.id, ledger.instances, ledger.rejections, ledger.counts())


def _each_once(files: Iterable[FoundFile]) -> list[FoundFile]:
    """Drop doubles: of a file that waits, the vault may know from a killed run that it was accepted."""
    return list({file.name: file for file in files}.values())


def _read(
    files: Iterable[FoundFile],
    limits: ReadLimits,
    *,
    ledger: Ledger,
    objects: ObjectStore,
    key: bytes,
    pool: Pool,
) -> Iterator[FoundFile]:
    """Read files, enter them and store their objects; each comes out when that is done."""
    for file, result in read_all(files, key, limits, pool):
        taken = ledger.enter(file, _believed(ledger.batch, result))
        if taken is not None:
            objects.put(taken.object, taken.row["object"])
        yield file


def _believed(batch: str, result: AcceptedInstance | Refusal) -> AcceptedInstance | Refusal:
    """Refuse a row that is none of ours; only a reader that was taken over sends one."""
    if isinstance(result, Refusal) or fits("instances", {"batch": batch, **result.row}):
        return result
    return Refusal(RejectionCode.WORKER_CRASHED, "it answered what is no answer")


def _account(home: Home, scan: Scan, new: set[str], begun: float) -> IngestSummary:
    """Count all files of a source by what is known of them; a file that came in the meantime is left out."""
    outcomes, rejected, taken = Counter[str](), Counter[str](), Taken()
    for record in scan.known.records(scan.files):
        earlier = record.outcome == "accepted" and record.batch not in new
        outcomes["duplicate" if earlier else record.outcome] += 1
        if record.outcome == "rejected":
            rejected[str(record.code)] += 1
        elif record.surrogate and record.outcome in ("accepted", "duplicate"):
            taken.add(record.surrogate)
    studies, patients = taken.counts(Catalog(home))
    return IngestSummary(
        found=outcomes.total(),
        accepted=outcomes["accepted"],
        duplicates=outcomes["duplicate"],
        not_dicom=outcomes["not_dicom"],
        rejected=dict(sorted(rejected.items())),
        studies=studies,
        patients=patients,
        seconds=time.monotonic() - begun,
    )


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Hold the one lock of a home's ingest; whoever comes second waits. The system frees it when we die."""
    import fcntl

    path = home.private / "ingest.lock"
    with storage_faults(path):  # what happens under the lock is not about this file
        stream = path.open("a")
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
