"""Plans the demo cohort: who has which disease, which studies and images there are, and when they were made.

Every draw comes from a stream of its own (:func:`stream`), so that leaving one trait family out changes
nothing but the images of patients whose disease is built on it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np

from meta_dx.dicom.phantom.drawing import Look
from meta_dx.dicom.phantom.people import Person, invent_people
from meta_dx.dicom.phantom.traits import FAMILIES, Disease, invent_diseases
from meta_dx.errors import MetaDxError

BODIES = ("CHEST", "ABDOMEN", "HEAD")
_FIRST_DAY, _DAYS = date(2021, 3, 1), 1400
_SECOND_BATCH = 0.25  # share of the studies, the latest ones, that the second batch holds
_SECOND_STUDY = 0.12  # share of the patients who come back
_COMMON, _VALIDATION = 36 / 64, 10 / 64  # shares of the diseases; the others are rare
_UNDIAGNOSED = 25 / 64  # studies without a diagnosis for each disease
TWINS = 4  # patients who were registered twice: one study, sent under two identities


@dataclass(frozen=True)
class Image:
    """One instance: its UIDs, its place in the study and its size in pixels."""

    uid: str
    series_uid: str
    series: int
    number: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Study:
    """One study of a patient.

    ``diagnosed`` says whether the diagnosis table may name its disease; ``origin`` is the study that was
    really made, another one where a patient was registered twice.
    """

    uid: str
    accession: str
    day: date
    second: int
    person: Person
    look: Look
    disease: Disease
    diagnosed: bool
    images: tuple[Image, ...]
    origin: str


@dataclass(frozen=True)
class Plan:
    """The whole cohort, before anything is drawn.

    Parameters
    ----------
    diseases : list of Disease
        In order of falling patient counts.
    patients : dict of str to int
        Diagnosed patients of each disease code.
    first, second : list of Study
        The two batches, each in order of the patients' identifiers; the second holds the later studies.
    """

    diseases: list[Disease]
    patients: dict[str, int]
    first: list[Study]
    second: list[Study]


def stream(seed: int, *names: object) -> np.random.Generator:
    """Return the random stream of these names, independent of all others and of the order of use."""
    digest = hashlib.sha256(repr((seed, *map(str, names))).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32).tolist())


def uid_of(seed: int, *names: object) -> str:
    """Return a UID of the 2.25 root (PS3.5, B.2) that depends on the seed and the names only."""
    digest = hashlib.sha256(repr((seed, *map(str, names))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def case_numbers(diseases: int) -> list[int]:
    """Return the patients of each disease: common (22 and more), validation (12-19), rare (5-9)."""
    common, validation = round(diseases * _COMMON), round(diseases * _VALIDATION)
    rare = diseases - common - validation
    numbers = [22 + round(42 * (1 - i / common) ** 3) for i in range(common)]
    numbers += [19 - round(7 * i / max(validation - 1, 1)) for i in range(validation)]
    tail = [5, 6, 7, 8, 8, 8, 8][: max(rare - 1, 0)]
    return numbers + sorted(tail + [9] * (rare - len(tail)), reverse=True)


def make_plan(seed: int, diseases: int, without: str | None) -> Plan:
    """Plan the cohort.

    Parameters
    ----------
    seed : int
        The same seed gives the same plan.
    diseases : int
        Number of diseases.
    without : str, optional
        Trait family that every patient draws at random, whatever the disease.

    Returns
    -------
    Plan

    Raises
    ------
    MetaDxError
        ``unknown_family`` or ``diseases_out_of_range``.
    """
    if without is not None and without not in FAMILIES:
        raise MetaDxError(
            "unknown_family", f"There is no trait family '{without}': choose one of {', '.join(FAMILIES)}."
        )
    kinds = invent_diseases(stream(seed, "diseases"), diseases, round(diseases * _COMMON))
    numbers = case_numbers(diseases)
    diagnosed = [kind for kind, number in zip(kinds, numbers, strict=True) for _ in range(number)]
    open_cases = _undiagnosed(stream(seed, "undiagnosed"), kinds, numbers)
    people = invent_people(stream(seed, "people"), len(diagnosed) + len(open_cases) + TWINS)

    studies: list[Study] = []
    for i, kind in enumerate([*diagnosed, *open_cases]):
        look = look_of(seed, i, kind, without)
        studies += _studies_of(seed, i, people[i], look, kind, i < len(diagnosed))
    frequent = {kind.code for kind in kinds[: max(diseases // 3, 1)]}
    common = [study for study in studies if study.diagnosed and study.disease.code in frequent]
    for i, place in enumerate(stream(seed, "twins").choice(len(common), TWINS, replace=False).tolist()):
        studies.append(_twin(seed, common[place], people[-1 - i]))

    cut = sorted(study.day for study in studies)[round(len(studies) * (1 - _SECOND_BATCH))]
    studies.sort(key=lambda study: (study.person.id, study.day, study.uid))
    return Plan(
        kinds,
        {kind.code: number for kind, number in zip(kinds, numbers, strict=True)},
        [study for study in studies if study.day < cut],
        [study for study in studies if study.day >= cut],
    )


def look_of(seed: int, patient: int, disease: Disease, without: str | None) -> Look:
    """Return what a patient looks like: the disease's levels, and own ones in all other families."""
    rng = stream(seed, "look", patient)
    levels = {family: str(rng.choice(names)) for family, names in FAMILIES.items()}
    levels |= {family: level for family, level in disease.levels.items() if family != without}
    build, body = rng.standard_normal(12), str(rng.choice(BODIES))
    tilt = float(np.pi / 2 + 0.25 * np.clip(rng.standard_normal(), -2, 2))
    return Look(levels, body, build, tilt)


def _undiagnosed(rng: np.random.Generator, kinds: list[Disease], numbers: list[int]) -> list[Disease]:
    """Choose the true diseases of the studies without a diagnosis: three in five are rare ones."""
    rare = [i for i, number in enumerate(numbers) if number < 10]
    picks = [
        int(rng.choice(rare)) if rng.random() < 0.6 else int(rng.integers(len(kinds)))
        for _ in range(round(len(kinds) * _UNDIAGNOSED))
    ]
    return [kinds[i] for i in picks]


def _studies_of(
    seed: int, patient: int, person: Person, look: Look, disease: Disease, known: bool
) -> list[Study]:
    rng = stream(seed, "studies", patient)
    days = [int(rng.integers(_DAYS))]
    if rng.random() < _SECOND_STUDY and known:
        days.append(days[0] + int(rng.integers(20, 300)))
    studies = []
    for visit, day in enumerate(days):
        uid = uid_of(seed, "study", patient, visit)
        studies.append(
            Study(
                uid=uid,
                accession=_accession(uid),
                day=_FIRST_DAY + timedelta(days=day),
                second=int(rng.integers(7 * 3600, 19 * 3600)),
                person=person,
                look=look,
                disease=disease,
                diagnosed=known,
                images=_images_of(rng, seed, f"{patient}/{visit}"),
                origin=uid,
            )
        )
    return studies


def _images_of(rng: np.random.Generator, seed: int, name: str) -> tuple[Image, ...]:
    count = int(rng.choice([1, 2, 3], p=[0.75, 0.18, 0.07]))
    apart = count > 1 and rng.random() < 0.2  # the last image in a series of its own
    images = []
    for k in range(count):
        series = 2 if apart and k == count - 1 else 1
        short = 4 * int(rng.integers(24, 29))
        long = short if rng.random() < 0.5 else 4 * round(short * rng.uniform(1.0, 1.2) / 4)
        rows, columns = (short, long) if rng.random() < 0.5 else (long, short)
        images.append(
            Image(
                uid_of(seed, "image", name, k),
                uid_of(seed, "series", name, series),
                series,
                k + 1,
                rows,
                columns,
            )
        )
    return tuple(images)


def _twin(seed: int, study: Study, person: Person) -> Study:
    """Return the same study as it arrives when the patient was registered a second time."""
    uid = uid_of(seed, "twin", study.uid)
    images = tuple(
        replace(image, uid=uid_of(seed, "twin", image.uid), series_uid=uid_of(seed, "twin", image.series_uid))
        for image in study.images
    )
    twice = replace(person, sex=study.person.sex, birth=study.person.birth)
    return replace(study, uid=uid, accession=_accession(uid), person=twice, images=images)


def _accession(study_uid: str) -> str:
    return f"{int(hashlib.sha256(study_uid.encode()).hexdigest(), 16) % 10**12:012d}"
