"""Plants the faults that a hospital's export has: files that are no DICOM, cut, incomplete or sent twice.

A damaged file is a further image of a sound study, so that no study disappears with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO

from pydicom import dcmread

from meta_dx.dicom.phantom.instances import encode, file_bytes, machine_of
from meta_dx.dicom.phantom.plan import Study, stream, uid_of

#: Files of each kind that are no DICOM, and their content.
NOT_DICOM: dict[str, tuple[str, bytes]] = {
    "text_file": ("README.txt", b"Exported for research. Please return the disc to the archive.\n"),
    "text_named_dcm": ("notes.dcm", b"patient list to follow by mail\n" * 40),
    "empty_file": ("I0000.dcm", b""),
}
#: Damaged files of each kind.
DAMAGED: dict[str, int] = {
    "cut_in_header": 2,
    "cut_in_pixels": 3,
    "cut_in_frame": 1,
    "no_patient_id": 1,
    "no_study_uid": 1,
    "no_instance_uid": 1,
    "no_rows": 1,
    "no_pixels": 2,
}
#: Exact copies of sound files under another name; those of the second batch copy files of the first.
DUPLICATES = {"first": 8, "second": 4}

_TAG = {
    "no_patient_id": "PatientID",
    "no_study_uid": "StudyInstanceUID",
    "no_instance_uid": "SOPInstanceUID",
    "no_rows": "Rows",
    "no_pixels": "PixelData",
}


@dataclass(frozen=True)
class Damaged:
    """A damaged file: what is wrong with it, the study it claims to belong to, and its bytes."""

    kind: str
    study: Study
    data: bytes


def damaged_files(seed: int, studies: list[Study]) -> list[Damaged]:
    """Draw one more image for a few studies and damage its file.

    Parameters
    ----------
    seed : int
        Seed of the cohort.
    studies : list of Study
        Where to choose from; sorted, so that the choice depends on the seed only.

    Returns
    -------
    list of Damaged
        As many of each kind as :data:`DAMAGED` says.
    """
    rng = stream(seed, "faults")
    packed = [study for study in studies if machine_of(seed, study).packed]
    plain = [study for study in studies if not machine_of(seed, study).packed]
    files = []
    for kind, count in DAMAGED.items():
        hosts = packed if kind == "cut_in_frame" else plain
        for i in range(count):
            study = hosts[rng.integers(len(hosts))]
            image = replace(study.images[0], uid=uid_of(seed, "fault", kind, i), number=90 + i)
            files.append(Damaged(kind, study, _damage(kind, i, encode(seed, study, image))))
    return files


def _damage(kind: str, number: int, data: bytes) -> bytes:
    if kind == "cut_in_header":
        return data[: (200, 700)[number % 2]]
    if kind.startswith("cut_"):
        return data[: len(data) * 6 // 10]
    dataset = dcmread(BytesIO(data))
    delattr(dataset, _TAG[kind])
    return file_bytes(dataset)
