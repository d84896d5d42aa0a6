"""Ingest: from a folder of files to objects and catalog, in batches, with every file accounted for.

A batch is committed in three steps: the objects are written, the vault learns the identities and what became
of every file, and one rename makes the batch's tables visible. Until that rename the batch does not exist, so
a process that dies anywhere and runs again ends with the same bytes as one that ran through. See
``docs/ingest.md``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from meta_dx.cohort.catalog import Catalog, clear_unfinished, write_batch
from meta_dx.cohort.ledger import Ledger
from meta_dx.cohort.objects import ObjectStore
from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.parsing import may_be_dicom
from meta_dx.dicom.pool import can_be_opened, read_all, reading_pool
from meta_dx.dicom.quarantine import QUARANTINED
from meta_dx.dicom.reading import ReadLimits
from meta_dx.dicom.rejections import RejectionCode
from meta_dx.dicom.sources import FoundFile, checked_folder, found_files
from meta_dx.errors import MetaDxError
from meta_dx.home import Home, storage_faults
from meta_dx.records.vault import FileRecord, Vault

Progress = Callable[[int, int], None]
"""Called with the files done and the files to do."""


@dataclass(frozen=True)
class IngestOptions:
    """Section ``[ingest]`` of ``cohort.toml``.

    Parameters
    ----------
    workers : int
        Processes that read files; 1 reads in the process itself.
    max_file_bytes : int
        Larger files are refused.
    max_decoded_bytes : int
        Files whose content would be larger than this after unpacking are refused.
    allow : tuple of str
        Kinds of pictures that are taken although they may show whose they are: ``burned_in_annotation``,
        ``recognizable_features``, ``secondary_capture``, ``ultrasound``.
    """

    workers: int = 1
    max_file_bytes: int = 2 << 30
    max_decoded_bytes: int = 4 << 30
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in self.allow:
            if kind not in QUARANTINED:
                raise MetaDxError(
                    "bad_value", f"allow has '{kind}': it may name {', '.join(QUARANTINED)}, and nothing else."
                )
        for name in ("workers", "max_file_bytes", "max_decoded_bytes"):
            if getattr(self, name) < 1:
                raise MetaDxError(
                    "bad_value", f"{name} is {getattr(self, name)}: allowed is a whole number from 1."
                )


@dataclass(frozen=True)
class Batch:
    """Files of one source that are taken in together.

    Parameters
    ----------
    id : str
        ``"b0001"`` and so on.
    source : Path
        The folder.
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
    folders = list(dict.fromkeys(checked_folder(source) for source in sources))
    with closing(Vault.open(home)) as vault:
        finished = set(Catalog(home).batches())
        known = vault.known_files()
        listed = {folder: found_files(folder, without=home.root) for folder in folders}
        with vault.transaction():
            planned = vault.batches()
            waiting = {Path(batch.source): batch.id for batch in planned if batch.id not in finished}
            numbers = [int(name[1:]) for name in {batch.id for batch in planned} | finished]
            batches = []
            for folder, files in listed.items():
                name = waiting.get(folder)
                new = any(_is_new(file, known, finished, allow) for file in files)
                if name is None and new and _holds_dicom(files, known):
                    numbers.append(max(numbers, default=0) + 1)
                    name = f"b{numbers[-1]:04d}"
                    vault.add_batch(name, str(folder))
                if name is not None:
                    batches.append(Batch(name, folder))
    return sorted(batches, key=lambda batch: batch.id)


def require_dicom(home: Home, source: Path | str) -> None:
    """Refuse a folder in which there is nothing to take in.

    Raises
    ------
    MetaDxError
        ``source_empty`` or ``source_without_dicom``; also what is wrong with the folder itself.
    """
    folder = checked_folder(source)
    files = found_files(folder, without=home.root)
    if not files:
        raise MetaDxError(
            "source_empty", f"The folder {folder} holds no file: name the folder with DICOM files."
        )
    with closing(Vault.open(home)) as vault:
        known = vault.known_files()
    if not _holds_dicom(files, known):
        raise _without_dicom(folder, len(files))


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
    folder = checked_folder(source)
    require_dicom(home, folder)
    batches = plan_batches(home, [folder], options.allow if options else ())
    for batch in batches:
        ingest_batch(home, batch, progress=progress, executor=executor, options=options)
    summary = _account(home, folder, {batch.id for batch in batches}, begun)
    if summary.found == summary.not_dicom:  # something began like DICOM, and was none
        raise _without_dicom(folder, summary.found)
    return summary


def instances_under(home: Home, folder: Path | str) -> frozenset[str]:
    """Return the surrogate UIDs of the instances that lie in a folder, whenever they were taken in."""
    with closing(Vault.open(home)) as vault:
        known = vault.known_files()
    paths = (str(file.path) for file in found_files(checked_folder(folder), without=home.root))
    records = (known[path] for path in paths if path in known)
    return frozenset(r.surrogate for r in records if r.surrogate and r.outcome in ("accepted", "duplicate"))


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
        known, places = vault.known_files(), vault.originals("file", refused)
    newest = {file: known[place] for file, place in places.items() if place in known}
    taken = ("accepted", "duplicate")
    return frozenset(
        f for f, record in newest.items() if record.batch in finished and record.outcome in taken
    )


def _without_dicom(folder: Path, files: int) -> MetaDxError:
    return MetaDxError(
        "source_without_dicom",
        f"The folder {folder} holds no DICOM file ({files} files of other kinds): "
        "name the folder with DICOM files.",
    )


def _holds_dicom(files: Sequence[FoundFile], known: dict[str, FileRecord]) -> bool:
    """Tell whether any file may be DICOM; what has been read before is not opened again."""
    for file in files:
        record = known.get(str(file.path))
        if record is not None and (record.size, record.mtime_ns) == (file.size, file.mtime_ns):
            if record.outcome != "not_dicom":
                return True
        elif file.refused is not None or may_be_dicom(file.path):
            return True
    return False


def _is_new(
    file: FoundFile, known: dict[str, FileRecord], finished: set[str], allow: Collection[str]
) -> bool:
    record = known.get(str(file.path))
    if record is None or record.batch not in finished:
        return True
    if record.code in allow:
        return True  # quarantined before, allowed now
    if record.code == RejectionCode.UNREADABLE_FILE and can_be_opened(file.path):
        return True  # new permissions leave no trace in size and time
    return (record.size, record.mtime_ns) != (file.size, file.mtime_ns)


def _ingest(
    home: Home,
    batch: Batch,
    vault: Vault,
    executor: Executor | None,
    options: IngestOptions,
    progress: Progress | None,
) -> None:
    catalog, objects = Catalog(home), ObjectStore(home)
    finished, known = set(catalog.batches()), vault.known_files()
    listed = found_files(checked_folder(batch.source), without=home.root)
    files = [file for file in listed if _is_new(file, known, finished, options.allow)]
    ledger = Ledger(batch.id, Surrogates(vault.key), catalog)
    limits = ReadLimits(options.max_file_bytes, options.max_decoded_bytes, allow=frozenset(options.allow))
    with reading_pool(executor, options.workers) as pool:
        for done, (file, result) in enumerate(read_all(files, vault.key, limits, pool), start=1):
            taken = ledger.enter(file, result)
            if taken is not None:
                objects.put(taken.object)
            if progress is not None:
                progress(done, len(files))
    objects.flush()
    with vault.transaction():
        for kind, pairs in ledger.identities.items():
            vault.remember(kind, pairs)
        vault.record_files(ledger.files)
    write_batch(home, batch.id, ledger.instances, ledger.rejections, ledger.counts())


def _account(home: Home, folder: Path, new: set[str], begun: float) -> IngestSummary:
    """Count all files of a folder by what is known of them; a file that came in the meantime is left out."""
    with closing(Vault.open(home)) as vault:
        known = vault.known_files()
    paths = (str(file.path) for file in found_files(folder, without=home.root))
    records = [known[path] for path in paths if path in known]
    outcomes = Counter(
        "duplicate" if record.outcome == "accepted" and record.batch not in new else record.outcome
        for record in records
    )
    taken = {record.surrogate for record in records if record.outcome in ("accepted", "duplicate")}
    instances = Catalog(home).instances(columns=["instance", "study", "patient"])
    held = instances[instances["instance"].isin(taken)]
    return IngestSummary(
        found=len(records),
        accepted=outcomes["accepted"],
        duplicates=outcomes["duplicate"],
        not_dicom=outcomes["not_dicom"],
        rejected=dict(sorted(Counter(str(r.code) for r in records if r.outcome == "rejected").items())),
        studies=held["study"].nunique(),
        patients=held["patient"].nunique(),
        seconds=time.monotonic() - begun,
    )


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Hold the one lock of a home's ingest; whoever comes second waits. The system frees it when we die."""
    import fcntl

    path = home.private / "ingest.lock"
    with storage_faults(path), path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
