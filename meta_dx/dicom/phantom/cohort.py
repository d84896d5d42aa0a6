"""Writes the demo cohort: two batches of DICOM files and the table of diagnoses."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from io import StringIO
from pathlib import Path

import numpy as np

from meta_dx.dicom.phantom.faults import DAMAGED, DUPLICATES, NOT_DICOM, damaged_files
from meta_dx.dicom.phantom.instances import encode
from meta_dx.dicom.phantom.plan import TWINS, Plan, Study, make_plan, stream
from meta_dx.dicom.phantom.traits import SCHEME
from meta_dx.errors import MetaDxError
from meta_dx.home import new_folder, storage_faults

#: Patients that make a disease common, a validation disease and a rare one, as the demo's split has it.
COMMON, VALIDATION, RARE = 20, 10, 5

_COLUMNS = (
    "study_instance_uid",
    "patient_id",
    "accession_number",
    "code",
    "coding_scheme",
    "meaning",
    "basis",
    "diagnosed_on",
)
_BASES = ("histology", "follow-up", "report", "reader", "")


@dataclass(frozen=True)
class PhantomSummary:
    """What was written.

    Parameters
    ----------
    folder : Path
        Holds ``first/``, ``second/`` and ``diagnoses.csv``.
    diseases : int
        Invented diseases.
    common, validation, rare : int
        Diseases with at least 20, 10-19 and 5-9 diagnosed patients.
    patients, studies, undiagnosed : int
        Patient identifiers, studies with at least one sound image, and those without a diagnosis.
    images : int
        Sound images, each counted once.
    duplicates, not_dicom : int
        Exact copies of sound files, and files that are no DICOM.
    damaged : dict of str to int
        Damaged DICOM files of each kind.
    twins : int
        Studies that came a second time under another patient identifier.
    files : int
        All files of both batches: images + duplicates + not_dicom + damaged.
    """

    folder: Path
    diseases: int
    common: int
    validation: int
    rare: int
    patients: int
    studies: int
    undiagnosed: int
    images: int
    duplicates: int
    not_dicom: int
    damaged: dict[str, int] = field(default_factory=dict)
    twins: int = 0
    files: int = 0


def write_phantom(
    out: Path,
    *,
    seed: int = 0,
    diseases: int = 64,
    without: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PhantomSummary:
    """Write the demo cohort.

    Parameters
    ----------
    out : Path
        Folder to make; it must not exist, or be empty.
    seed : int
        The same seed gives the same bytes.
    diseases : int
        Number of diseases, 5 to 72.
    without : str, optional
        A trait family (``"texture"``, ``"contrast"``, ``"shape"``, ``"place"``, ``"number"``) in which every
        patient has a random level. Only images of diseases built on this family change.
    progress : callable, optional
        Called with (files written, files in all).

    Returns
    -------
    PhantomSummary

    Raises
    ------
    MetaDxError
        ``output_exists``, ``unknown_family``, ``diseases_out_of_range``, or a storage fault.
    """
    plan = make_plan(seed, diseases, without)
    with storage_faults(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise MetaDxError(
                "output_exists",
                f"{out} is there already and not empty: name a new folder, or remove it.",
            )
        if out.exists():
            out.rmdir()
    total = _count_files(plan)
    with new_folder(out) as folder:
        for done, (path, data) in enumerate(_files(seed, plan), start=1):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            if progress:
                progress(done, total)
        (folder / "diagnoses.csv").write_bytes(_diagnoses(seed, plan))
    return _summary(out, plan, total)


def _files(seed: int, plan: Plan) -> Iterator[tuple[Path, bytes]]:
    """Draw all files, each with its path below the output folder."""
    sound: list[tuple[Path, bytes]] = []
    uids = [image.uid for study in plan.first for image in study.images]
    again = set(stream(seed, "duplicates").choice(uids, sum(DUPLICATES.values()), replace=False).tolist())
    damaged = damaged_files(seed, sorted(plan.first + plan.second, key=lambda study: study.uid))
    for batch, studies in (("first", plan.first), ("second", plan.second)):
        root = Path(batch)
        for study in studies:
            for image in study.images:
                path, data = root / _folder(study) / _name(study, image.number), encode(seed, study, image)
                yield path, data
                if image.uid in again:
                    sound.append((path, data))
        for i, (path, data) in enumerate(_copies(batch, sound)):
            yield root / "resent" / f"{i:02d}_{path.name}", data
        here = {study.uid for study in studies}
        for i, broken in enumerate(damaged):
            if broken.study.uid in here:
                yield root / _folder(broken.study) / _name(broken.study, 90 + i), broken.data
        for name, data in NOT_DICOM.values():
            yield root / name, data


def _copies(batch: str, sound: list[tuple[Path, bytes]]) -> list[tuple[Path, bytes]]:
    """Choose the files that are sent again: some in the batch itself, others with the second batch."""
    return sound[: DUPLICATES["first"]] if batch == "first" else sound[DUPLICATES["first"] :]


def _folder(study: Study) -> Path:
    return Path(study.person.id) / study.accession


def _name(study: Study, number: int) -> str:
    """Name a file as its archive does: some write no suffix."""
    return f"I{number:04d}" + ("" if int(study.person.id) % 5 == 0 else ".dcm")


def _diagnoses(seed: int, plan: Plan) -> bytes:
    table = StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for study in sorted(plan.first + plan.second, key=lambda study: (study.person.id, study.day, study.uid)):
        if not study.diagnosed:
            continue
        rng = stream(seed, "diagnosis", study.uid)
        basis = _BASES[int(rng.choice(len(_BASES), p=[0.25, 0.15, 0.3, 0.2, 0.1]))]
        on = study.day + timedelta(days=int(rng.integers(0, 30)))
        disease = study.disease
        writer.writerow(
            [
                study.uid,
                study.person.id,
                study.accession,
                disease.code,
                SCHEME,
                disease.meaning,
                basis,
                on.isoformat() if basis else "",
            ]
        )
    return table.getvalue().encode()


def _count_files(plan: Plan) -> int:
    images = sum(len(study.images) for study in plan.first + plan.second)
    return images + sum(DUPLICATES.values()) + 2 * len(NOT_DICOM) + sum(DAMAGED.values())


def _summary(out: Path, plan: Plan, files: int) -> PhantomSummary:
    studies = plan.first + plan.second
    numbers = np.array(list(plan.patients.values()))
    return PhantomSummary(
        folder=out,
        diseases=len(plan.diseases),
        common=int((numbers >= COMMON).sum()),
        validation=int(((numbers >= VALIDATION) & (numbers < COMMON)).sum()),
        rare=int(((numbers >= RARE) & (numbers < VALIDATION)).sum()),
        patients=len({study.person.id for study in studies}),
        studies=len(studies),
        undiagnosed=sum(not study.diagnosed for study in studies),
        images=sum(len(study.images) for study in studies),
        duplicates=sum(DUPLICATES.values()),
        not_dicom=2 * len(NOT_DICOM),
        damaged=dict(DAMAGED),
        twins=TWINS,
        files=files,
    )
