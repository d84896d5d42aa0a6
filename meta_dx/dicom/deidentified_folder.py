"""``meta-dx deidentify``: a folder of DICOM files becomes a folder of files without identities.

Every file goes through the same checks and the same sandbox as at ingest. The file ``deidentification.json`` in
the result says with which options it was made; a folder without it is never written into, unless it is empty.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from meta_dx.dicom.identity import NamedPatient, Surrogates
from meta_dx.dicom.mixed_studies import MixedStudies, reading_order
from meta_dx.dicom.pool import Pool, contents_of, read_all, reading_pool
from meta_dx.dicom.profile import TABLE, ProfileOptions
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sources import FoundFile, checked_source, found_files, is_container_name
from meta_dx.errors import MetaDxError
from meta_dx.home import storage_faults, write_bytes, write_json
from meta_dx.progress import Progress, silent

REPORT = "deidentification.json"
_VERSION = 3  # of what the files look like


@dataclass(frozen=True)
class RefusedFile:
    """A file that was not handed out: where it lies, and why. For whoever runs the command, nobody else."""

    path: str
    code: str
    reason: str


@dataclass(frozen=True)
class DeidentifiedFolder:
    """What became of the files: found = written + unchanged + duplicates + not_dicom + all refused.

    Parameters
    ----------
    found : int
        Files that were found.
    written : int
        New files in the result, and those that were written anew.
    unchanged : int
        Files that an earlier run had written.
    duplicates : int
        Files whose instance, with the same content, was there already in this run.
    not_dicom : int
        Files that are no DICOM.
    refused : dict of str to int
        By code (:class:`~meta_dx.dicom.rejections.RejectionCode`).
    files : tuple of RefusedFile
        Each file that was refused.
    identities : dict of str to dict of str to str
        For the vault only: kind to surrogate to original.
    """

    found: int
    written: int
    unchanged: int
    duplicates: int
    not_dicom: int
    refused: dict[str, int]
    files: tuple[RefusedFile, ...]
    identities: dict[str, dict[str, str]] = field(repr=False)


def deidentify_folder(
    source: Path | str,
    out: Path,
    key: bytes,
    options: ProfileOptions,
    *,
    limits: ReadLimits | None = None,
    held: Mapping[str, NamedPatient] | None = None,
    workers: int = 0,
    progress: Progress = silent,
) -> DeidentifiedFolder:
    """De-identify every picture under a folder by the profile of PS3.15.

    Parameters
    ----------
    source : Path or str
        A folder, an archive or a DICOMDIR; it is only read.
    out : Path
        The result: ``<surrogate UID>.dcm`` for each instance, and :data:`REPORT`. Made if needed.
    key : bytes
        What surrogates are made with: that of a home, to match its catalog, or another.
    options : ProfileOptions
        What is retained.
    limits : ReadLimits, optional
        What one file may take, and which kinds of quarantined pictures are let through.
    held : mapping of str to NamedPatient, optional
        Of the studies of a home, the patients in its catalog.
    workers : int
        Processes that read; 0 for one a core.
    progress : Progress
        Called with files done and files to do.

    Returns
    -------
    DeidentifiedFolder
        The same call again writes nothing new; one that was killed goes on. A file that is there with other
        content is not touched: ``conflicting_instance``; unless it is what this file became before ``held`` knew
        the issuer of the patient's number, then it is written anew.

    Raises
    ------
    MetaDxError
        ``out_not_ours`` for a folder with other files, ``out_of_other_options`` for a result that was made with
        other options or another key; from the source, or a storage fault.
    """
    place, wanted = checked_source(source), _made_with(key, options)
    _open_result(out, place, wanted)
    made = _Result(out, Surrogates(key), held or {})
    reading = replace(limits or ReadLimits(), profile=options)
    with reading_pool(None, workers) as pool:
        files = found_files(place, without=out)
        sources = _each(files, place, key, reading, pool, made)
        for done, (file, result) in enumerate(read_all(sources, key, reading, pool), start=1):
            made.enter(file, result)
            progress(done, max(done, len(files)))
        again, patients = made.to_read_again()
        for file, result in read_all(again, key, replace(reading, patients=patients), pool):
            made.enter(file, result)
    summary = made.summary()
    counts = {name: value for name, value in asdict(summary).items() if name not in ("files", "identities")}
    write_json(out / REPORT, {"made_with": wanted, "counts": counts})
    return summary


class _Entered(NamedTuple):
    file: FoundFile
    instance: str
    outcome: str


class _Result:
    def __init__(self, out: Path, surrogates: Surrogates, held: Mapping[str, NamedPatient]) -> None:
        self._out, self._surrogates, self._held = out, surrogates, held
        self._counts: Counter[str] = Counter()
        self._refused: list[RefusedFile] = []
        self._digests: dict[str, str] = {}
        self._patients: dict[str, NamedPatient] = {}
        self._studies: dict[str, str] = {}
        self._entered: dict[str, list[_Entered]] = {}
        self._identities: dict[str, dict[str, str]] = {}
        self._mixed = MixedStudies()
        self._waiting: list[tuple[FoundFile, str]] = []
        self._outdated: dict[str, str] = {}
        self._last_reading = False

    def enter(self, file: FoundFile, result: AcceptedInstance | Refusal) -> None:
        """Write one file, or count why not; one that has to be read again waits."""
        if isinstance(result, Refusal):
            self.refuse(file, result)
            return
        row, named = result.row, self._named(result)
        held = self._patient(row["study"])
        if not self._last_reading and held is not None and self._mixed.joins(row["study"], held, named):
            if not self._may_rename(row, held):
                self._note_outdated(file, row, held)
                self._waiting.append((file, row["study"]))
                return
            self._rename(row["study"], named)
            held = named
        refusal = self._objection(file, row, held)
        if refusal is None:
            self._patients.setdefault(row["study"], named)
            self._write(file, result)
        elif refusal is RejectionCode.CONFLICTING_INSTANCE and not self._last_reading:
            self._waiting.append((file, row["study"]))  # under another name of its patient it may be the same
        else:
            self.refuse(file, Refusal(refusal))

    def to_read_again(self) -> tuple[list[FoundFile], dict[str, NamedPatient]]:
        """Return the files that wait, and as which patients they are to be read; from then on none waits."""
        self._last_reading = True
        studies = {study: self._patient(study) for _, study in self._waiting}
        # A copy that may be replaced is replaced first: others of its instance are held against the new one.
        files = sorted(
            (file for file, _ in self._waiting),
            key=lambda file: (file.name not in self._outdated, reading_order(file)),
        )
        return files, {study: patient for study, patient in studies.items() if patient is not None}

    def _patient(self, study: str) -> NamedPatient | None:
        return self._held.get(study) or self._patients.get(study)

    def _may_rename(self, row: dict[str, Any], held: NamedPatient) -> bool:
        belongs = self._studies.get(row["series"], row["study"]) == row["study"]
        return held.without_issuer and row["study"] not in self._held and belongs

    def _note_outdated(self, file: FoundFile, row: dict[str, Any], held: NamedPatient) -> None:
        """Note a copy that this very file became before the home knew the issuer: it may be replaced."""
        path = self._out / f"{row['instance']}.dcm"
        learnt = row["study"] in self._held and not held.without_issuer
        if (
            learnt
            and row["instance"] not in self._digests
            and path.exists()
            and _digest(path) == row["object"]
        ):
            self._outdated[file.name] = row["object"]

    def _named(self, result: AcceptedInstance) -> NamedPatient:
        patient = result.row["patient"]
        number = result.identities.get("patient", {}).get(patient, "")
        return NamedPatient(patient, self._surrogates.patient(number))

    def _objection(
        self, file: FoundFile, row: dict[str, Any], held: NamedPatient | None
    ) -> RejectionCode | None:
        """Return why a file cannot stand beside those that were written; as at ingest."""
        name, digest, path = row["instance"], row["object"], self._out / f"{row['instance']}.dcm"
        standing = _digest(path) if path.exists() else digest
        if self._digests.get(name, digest) != digest or standing not in (
            digest,
            self._outdated.get(file.name),
        ):
            return RejectionCode.CONFLICTING_INSTANCE
        if held is not None and held.surrogate != row["patient"]:
            return RejectionCode.STUDY_OF_TWO_PATIENTS
        if self._studies.get(row["series"], row["study"]) != row["study"]:
            return RejectionCode.SERIES_OF_TWO_STUDIES
        return None

    def _rename(self, study: str, named: NamedPatient) -> None:
        """Let a study take over the issuer that a file names: what was written before is made anew."""
        self._patients[study] = self._mixed.patients[study] = named
        for one in self._entered.pop(study, ()):
            self._counts[one.outcome] -= 1
            self._waiting.append((one.file, study))
            if self._digests.pop(one.instance, None) is not None:
                with storage_faults(self._out):
                    (self._out / f"{one.instance}.dcm").unlink(missing_ok=True)

    def _write(self, file: FoundFile, result: AcceptedInstance) -> None:
        row, path = result.row, self._out / f"{result.row['instance']}.dcm"
        if row["instance"] in self._digests:
            outcome = "duplicates"
        elif path.exists() and (file.name not in self._outdated or _digest(path) == row["object"]):
            outcome = "unchanged"
        else:
            write_bytes(path, result.object)
            outcome = "written"
        self._counts[outcome] += 1
        self._digests[row["instance"]] = row["object"]
        self._studies[row["series"]] = row["study"]
        if self._patients[row["study"]].without_issuer:
            self._entered.setdefault(row["study"], []).append(_Entered(file, row["instance"], outcome))
        for kind, pairs in result.identities.items():
            self._identities.setdefault(kind, {}).update(pairs)

    def refuse(self, file: FoundFile, refusal: Refusal) -> None:
        """Count a file that is not handed out."""
        if refusal.outcome == "not_dicom":
            self._counts["not_dicom"] += 1
        else:
            self._refused.append(RefusedFile(file.name, refusal.code.value, refusal.reason))

    def summary(self) -> DeidentifiedFolder:
        """Return what became of all files."""
        return DeidentifiedFolder(
            found=sum(self._counts.values()) + len(self._refused),
            written=self._counts["written"],
            unchanged=self._counts["unchanged"],
            duplicates=self._counts["duplicates"],
            not_dicom=self._counts["not_dicom"],
            refused=dict(sorted(Counter(file.code for file in self._refused).items())),
            files=tuple(self._refused),
            identities=self._identities,
        )


def _each(
    files: list[FoundFile], source: Path, key: bytes, limits: ReadLimits, pool: Pool, made: _Result
) -> Iterator[FoundFile]:
    """Yield the files of a source, those in archives in the place of the archive."""
    for file in files:
        if not is_container_name(file.path.name, named=file.path == source):
            yield file
            continue
        listing = contents_of(file, key, limits, pool)
        if listing.plain:
            yield file
            continue
        if listing.refusal is not None:
            made.refuse(file, listing.refusal)
        yield from listing.files


def _made_with(key: bytes, options: ProfileOptions) -> dict[str, object]:
    mark = hashlib.sha256(b"meta_dx deidentify" + key).hexdigest()[:16]
    return {"version": _VERSION, "table": TABLE, "options": asdict(options), "key": mark}


def _open_result(out: Path, source: Path, wanted: dict[str, object]) -> None:
    """Make the folder of the result, or see that it is one of ours."""
    if out.exists() and not out.is_dir():
        raise MetaDxError("out_not_ours", f"{out} is a file: name a new or empty folder.")
    if out.resolve() == source:
        raise MetaDxError("out_not_ours", f"{out} is the source itself: name a new or empty folder.")
    report = out / REPORT
    if report.is_file():
        try:
            found = json.loads(report.read_text()).get("made_with")
        except (ValueError, AttributeError, UnicodeDecodeError):
            found = None
        if found != wanted:
            raise MetaDxError(
                "out_of_other_options",
                f"{out} was made with other options, another key or another version: name a new folder.",
            )
        return
    with storage_faults(out):
        if out.exists() and any(out.iterdir()):
            raise MetaDxError("out_not_ours", f"{out} holds other files: name a new or empty folder.")
        out.mkdir(parents=True, exist_ok=True)
    write_json(report, {"made_with": wanted})


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
