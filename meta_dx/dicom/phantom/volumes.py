"""The demo cohort in three dimensions: CT series of invented diseases, and series with every fault of geometry.

A disease is a combination of the levels of :data:`TRAITS`: the form of its lesions in space, their density and
their number. Everything else (place, direction, size, tissue, body, machine, orientation and number of the slices)
is drawn for each patient. The series with faults belong to studies of their own, without a diagnosis.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from meta_dx.dicom.phantom.instances import file_bytes
from meta_dx.dicom.phantom.people import Person, invent_people
from meta_dx.dicom.phantom.plan import stream, uid_of
from meta_dx.dicom.phantom.traits import SCHEME
from meta_dx.errors import MetaDxError
from meta_dx.home import new_folder, storage_faults

Floats = npt.NDArray[np.float64]

TRAITS: dict[str, tuple[str, ...]] = {
    "form": ("round", "linear", "planar", "hollow"),
    "density": ("dense", "lucent"),
    "number": ("solitary", "multiple"),
}
#: Faults of geometry, one study each, and the reason that each has to be given (``two_phases``: none, two volumes).
FAULTS = ("tilt", "gap", "duplicate", "uneven", "scout", "two_phases")
_FEWEST, _MOST = 6, 16
_NOUNS = {"solitary": "sphaerium", "multiple": "sphaeriosis"}
_TISSUE, _AIR, _CONTRAST = 40.0, -1000.0, 260.0  # HU
_NOISE = 12.0
_HALF = 100.0  # mm from the middle of the body to the edge of the volume
_DAYS = 900


@dataclass(frozen=True)
class VolumePhantomSummary:
    """What was written.

    Parameters
    ----------
    folder : Path
        Holds ``studies/`` and ``diagnoses.csv``.
    diseases : int
        Invented diseases: half of them common, a quarter validation diseases, the others rare.
    patients, studies, files : int
        Patients, studies and files; one patient has one study, and every study one series.
    faults : dict of str to int
        Studies with a fault of geometry, by kind.
    """

    folder: Path
    diseases: int
    patients: int
    studies: int
    files: int
    faults: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Case:
    person: Person
    levels: dict[str, str]
    code: str
    meaning: str
    fault: str = ""


def write_volume_phantom(
    out: Path,
    *,
    seed: int = 0,
    diseases: int = 16,
    patients: int = 7,
    progress: Callable[[int, int], None] | None = None,
) -> VolumePhantomSummary:
    """Write the three-dimensional demo cohort.

    Parameters
    ----------
    out : Path
        Folder to make; it must not exist, or be empty.
    seed : int
        The same seed gives the same bytes.
    diseases : int
        6 to 16.
    patients : int
        Of every validation and rare disease, at least 3; a common one has three more.
    progress : callable, optional
        Called with (studies written, studies in all).

    Returns
    -------
    VolumePhantomSummary

    Raises
    ------
    MetaDxError
        ``output_exists``, ``diseases_out_of_range``, ``bad_value``, or a storage fault.
    """
    if not _FEWEST <= diseases <= _MOST:
        raise MetaDxError(
            "diseases_out_of_range", f"{diseases} diseases cannot be invented: ask for {_FEWEST} to {_MOST}."
        )
    if patients < 3:
        raise MetaDxError("bad_value", f"patients is {patients}: allowed is a whole number from 3.")
    with storage_faults(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise MetaDxError(
                "output_exists", f"{out} is there already and not empty: name a new folder, or remove it."
            )
        if out.exists():
            out.rmdir()
    cases, files = _cases(seed, diseases, patients), 0
    with new_folder(out) as folder:
        for done, case in enumerate(cases, start=1):
            target = folder / "studies" / case.person.id
            target.mkdir(parents=True)
            for number, data in enumerate(_series(seed, case)):
                (target / f"I{number:04d}.dcm").write_bytes(data)
                files += 1
            if progress:
                progress(done, len(cases))
        (folder / "diagnoses.csv").write_text(_diagnoses(seed, cases), encoding="utf-8")
    return VolumePhantomSummary(out, diseases, len(cases), len(cases), files, {fault: 1 for fault in FAULTS})


def _cases(seed: int, diseases: int, patients: int) -> list[_Case]:
    rng = stream(seed, "volumes")
    combinations = [dict(zip(TRAITS, levels, strict=True)) for levels in product(*TRAITS.values())]
    order = rng.permutation(len(combinations))
    numbers = [patients + 3] * (diseases // 2) + [patients] * (diseases - diseases // 2)
    people = invent_people(rng, sum(numbers) + len(FAULTS))
    cases, each = [], iter(people)
    for place, count in enumerate(numbers):
        levels = combinations[int(order[place])]
        meaning = f"{levels['density']} {levels['form']} {_NOUNS[levels['number']]}".capitalize()
        cases += [_Case(next(each), levels, f"VX{place:02d}", meaning) for _ in range(count)]
    anybody = combinations[int(order[0])]
    return cases + [_Case(next(each), anybody, "", "", fault) for fault in FAULTS]


def _diagnoses(seed: int, cases: Sequence[_Case]) -> str:
    table = StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(
        ["study_instance_uid", "patient_id", "accession_number", "code", "coding_scheme", "meaning"]
    )
    for case in sorted(cases, key=lambda case: case.person.id):
        if case.code:
            study = uid_of(seed, "volume study", case.person.id)
            writer.writerow([study, case.person.id, _accession(case), case.code, SCHEME, case.meaning])
    return table.getvalue()


def _accession(case: _Case) -> str:
    return f"V{case.person.id}"


def _series(seed: int, case: _Case) -> Iterator[bytes]:
    """Draw the files of a study, in an order that says nothing about where the slices lie."""
    rng = stream(seed, "volume", case.person.id)
    grid = _Grid.drawn(rng)
    body = _Body.drawn(case.levels, rng)
    places = _slices(grid, case.fault, rng)
    for number in rng.permutation(len(places)).tolist():
        position, phase = places[number]
        values = body.density(grid.points(position))
        values += _NOISE * rng.standard_normal(values.shape)
        yield file_bytes(_dataset(seed, case, grid, number, position, phase, values))


@dataclass(frozen=True)
class _Grid:
    """How the slices lie: directions, LPS; spacing of slices, rows and columns in mm."""

    across: Floats
    down: Floats
    normal: Floats
    spacing: Floats
    shape: tuple[int, int, int]
    signed: bool

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> _Grid:
        """Draw an axial, coronal or sagittal series, read out either way."""
        shape = (int(rng.integers(16, 25)), int(rng.integers(32, 49)), int(rng.integers(32, 49)))
        axes = np.eye(3)[{0: [0, 1, 2], 1: [0, 2, 1], 2: [1, 2, 0]}[int(rng.choice(3, p=[0.7, 0.15, 0.15]))]]
        across, down = (
            axes[0] * rng.choice([-1, 1], p=[0.1, 0.9]),
            axes[1] * rng.choice([-1, 1], p=[0.1, 0.9]),
        )
        spacing = np.round(2 * _HALF / np.array(shape) * rng.uniform(0.98, 1.02, 3), 3)
        return cls(across, down, np.cross(across, down), spacing, shape, bool(rng.random() < 0.5))

    def corner(self, slice_: float) -> Floats:
        """Return the centre of a slice's first pixel; the middle of the body is at the origin."""
        back = (np.array(self.shape) - 1) / 2 * self.spacing
        aside = back[1] * self.down + back[2] * self.across
        place: Floats = (slice_ * self.spacing[0] - back[0]) * self.normal - aside
        return place

    def points(self, position: Floats) -> Floats:
        """Return where the pixels of a slice lie, shape (rows, columns, 3)."""
        rows, columns = (np.arange(n, dtype=float) for n in self.shape[1:])
        along = rows[:, None, None] * self.spacing[1] * self.down
        points: Floats = position + along + columns[:, None] * self.spacing[2] * self.across
        return points


def _slices(grid: _Grid, fault: str, rng: np.random.Generator) -> list[tuple[Floats, int]]:
    """Return the positions of all slices and the acquisition of each, with the fault that was asked for."""
    numbers = np.arange(grid.shape[0], dtype=float)
    if fault == "gap":
        numbers = np.delete(numbers, len(numbers) // 2)
    elif fault == "duplicate":
        numbers = np.append(numbers, numbers[3])
    elif fault == "uneven":
        numbers[len(numbers) // 2 :] += 0.4
    elif fault == "scout":
        numbers = numbers[:1]
    phases = [1, 2] if fault == "two_phases" else [1]
    sideways = np.tan(np.radians(15.0)) * grid.down * grid.spacing[0] if fault == "tilt" else np.zeros(3)
    return [
        (grid.corner(number) + sideways * number, phase) for phase in phases for number in numbers.tolist()
    ]


@dataclass(frozen=True)
class _Body:
    """A body and its lesions; lengths in mm."""

    half: Floats
    power: float
    waves: Floats  # (waves, 5): direction times frequency (3), phase, height in HU
    lesions: tuple[tuple[Floats, Floats, float], ...]  # centre, direction, size
    levels: dict[str, str]

    @classmethod
    def drawn(cls, levels: dict[str, str], rng: np.random.Generator) -> _Body:
        half = np.array([82.0, 90.0, 86.0]) * rng.uniform(0.95, 1.05, 3)
        frequency = rng.standard_normal((8, 3)) * rng.uniform(0.02, 0.06)
        waves = np.column_stack([frequency, rng.uniform(0, 2 * np.pi, 8), rng.uniform(2, 10, 8)])
        many = levels["number"] == "multiple"
        size = (0.62 if many else 1.0) * rng.uniform(0.9, 1.1)
        lesions = []
        for place in _places(4 if many else 1, 44.0 if many else 20.0, rng):
            direction = rng.standard_normal(3)
            lesions.append((place, direction / np.linalg.norm(direction), size))
        return cls(half, float(rng.uniform(2.0, 2.6)), waves, tuple(lesions), levels)

    def density(self, points: Floats) -> Floats:
        """Return Hounsfield units at some points, shape (..., 3) to (...)."""
        inside: npt.NDArray[np.bool_] = (np.abs(points / self.half) ** self.power).sum(axis=-1) < 1
        tissue = _TISSUE + (np.cos(points @ self.waves[:, :3].T + self.waves[:, 3]) @ self.waves[:, 4])
        change = _CONTRAST if self.levels["density"] == "dense" else -_CONTRAST
        covered = np.zeros(points.shape[:-1])
        for centre, direction, size in self.lesions:
            covered = np.maximum(covered, _covered((points - centre) / size, direction, self.levels["form"]))
        return np.where(inside, tissue + change * covered, _AIR)


def _places(count: int, reach: float, rng: np.random.Generator) -> list[Floats]:
    """Draw places in the body that do not touch."""
    places: list[Floats] = []
    apart = 1.1 * reach
    while len(places) < count:
        place = rng.uniform(-reach, reach, 3)
        if all(np.linalg.norm(place - other) > apart for other in places):
            places.append(place)
        apart *= 0.98
    return places


def _covered(away: Floats, direction: Floats, form: str) -> Floats:
    """Return how much of a lesion of size 1 is at some distance from its centre, 0 … 1 with a soft edge of 6 mm."""
    length = np.linalg.norm(away, axis=-1)
    along = np.abs(away @ direction)
    beside = np.sqrt(np.maximum(length**2 - along**2, 0))
    depth = {  # mm inside the surface
        "round": 30 - length,
        "linear": np.minimum(14 - beside, 62 - along),
        "planar": np.minimum(11 - along, 46 - beside),
        "hollow": np.minimum(40 - length, length - 26),
    }[form]
    soft: Floats = np.clip(0.5 + depth / 6, 0, 1)
    return soft


def _dataset(
    seed: int, case: _Case, grid: _Grid, number: int, position: Floats, phase: int, values: Floats
) -> Dataset:
    person, dataset = case.person, Dataset()
    day = date(2021, 3, 1) + timedelta(days=int(stream(seed, "day", person.id).integers(_DAYS)))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID, dataset.PatientSex = person.name, person.id, person.sex
    dataset.PatientBirthDate = person.birth.strftime("%Y%m%d")
    dataset.PatientAge = f"{(day - person.birth).days // 365:03d}Y"
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = uid_of(seed, "volume slice", person.id, number)
    dataset.StudyInstanceUID = uid_of(seed, "volume study", person.id)
    dataset.SeriesInstanceUID = uid_of(seed, "volume series", person.id)
    dataset.FrameOfReferenceUID = uid_of(seed, "volume frame", person.id)
    dataset.AccessionNumber, dataset.StudyDate = _accession(case), day.strftime("%Y%m%d")
    dataset.Modality, dataset.BodyPartExamined = "CT", "HEAD"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Nordlicht Medizintechnik", "Zenit 16"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER" if case.fault == "scout" else "AXIAL"]
    dataset.InstanceNumber, dataset.AcquisitionNumber = 1 + (7 * number) % 101, phase
    dataset.ImageOrientationPatient = _decimals([*grid.across, *grid.down])
    dataset.ImagePositionPatient = _decimals(position)
    dataset.PixelSpacing, dataset.SliceThickness = _decimals(grid.spacing[1:]), _decimals(grid.spacing[:1])[0]
    _add_pixels(dataset, values, grid.signed)
    return dataset


def _decimals(values: Any) -> list[str]:
    return [f"{float(value):.4f}" for value in values]


def _add_pixels(dataset: Dataset, values: Floats, signed: bool) -> None:
    intercept = 0 if signed else -1024
    stored = np.clip(np.rint(values) - intercept, -1024 if signed else 0, 3071).astype(
        "<i2" if signed else "<u2"
    )
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (
        16,
        16 if signed else 12,
        15 if signed else 11,
    )
    dataset.PixelRepresentation = int(signed)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, intercept, "HU"
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    meta = dataset.file_meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        dataset.SOPClassUID,
        dataset.SOPInstanceUID,
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
