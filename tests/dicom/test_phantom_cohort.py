"""The demo cohort is what docs/demo-cohort.md says: deterministic, long-tailed, faulty, hard, and free of leaks."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from meta_dx.cohort.examples import Examples
from meta_dx.cohort.preprocessing import ImageOptions, preprocess
from meta_dx.dicom.phantom import write_phantom
from meta_dx.dicom.phantom.plan import make_plan
from meta_dx.dicom.phantom.traits import FAMILIES
from meta_dx.dicom.pixels import physical_pixels
from meta_dx.episodes.plan import EpisodeSampler
from meta_dx.errors import MetaDxError

SMALL = 16


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, seed=5, diseases=SMALL)
    return folder


@pytest.fixture(scope="module")
def datasets(cohort: Path) -> dict[str, pydicom.Dataset]:
    """One readable image of each study, by study UID."""
    found: dict[str, pydicom.Dataset] = {}
    for path in sorted(cohort.rglob("*")):
        if not path.is_file() or path.suffix == ".csv":
            continue
        try:
            dataset = pydicom.dcmread(path)
            dataset.pixel_array  # noqa: B018 - broken on purpose in some files
            found.setdefault(str(dataset.StudyInstanceUID), dataset)
        except Exception:  # noqa: S112 - the faults are planted
            continue
    return found


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)
    return hashlib.sha256(content).hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom(tmp_path / name, seed=seed, diseases=5)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_case_numbers_have_a_long_tail_and_fill_every_role_of_the_demo_split() -> None:
    plan = make_plan(0, 64, None)
    counts = sorted(plan.patients.values(), reverse=True)
    assert len(counts) == 64
    assert sum(n >= 20 for n in counts) >= 36
    assert sum(10 <= n < 20 for n in counts) >= 8
    assert sum(5 <= n < 10 for n in counts) >= 12
    assert counts[0] > 4 * counts[-1]


def test_a_code_names_its_traits_whatever_the_seed() -> None:
    traits: dict[str, dict[str, str]] = {}
    for seed in range(4):
        for disease in make_plan(seed, 40, None).diseases:
            assert traits.setdefault(disease.code, disease.levels) == disease.levels
            assert 2 <= len(disease.levels) <= 3


def test_any_two_diseases_can_be_told_apart() -> None:
    for disease in (diseases := make_plan(0, 64, None).diseases):
        for other in diseases:
            if other is disease:
                continue
            shared = disease.levels.keys() & other.levels.keys()
            differ = any(disease.levels[family] != other.levels[family] for family in shared)
            chance = np.prod([1 / len(FAMILIES[f]) for f in other.levels.keys() - disease.levels.keys()])
            assert differ or chance <= 1 / 12 + 1e-9


def test_modalities_inversion_depth_compression_and_several_images_occur(
    datasets: dict[str, pydicom.Dataset], cohort: Path
) -> None:
    every = list(datasets.values())
    assert len({d.Modality for d in every}) >= 4
    assert {d.PhotometricInterpretation for d in every} == {"MONOCHROME1", "MONOCHROME2"}
    assert len({d.file_meta.TransferSyntaxUID for d in every}) >= 2
    assert {int(d.BitsStored) for d in every} >= {8, 12, 16}
    assert any(
        float(d.get("RescaleSlope", 1)) != 1 or float(d.get("RescaleIntercept", 0)) != 0 for d in every
    )
    per_folder = Counter(path.parent for path in cohort.rglob("*") if path.is_file())
    assert max(per_folder.values()) > 1


def test_the_planted_faults_are_found_by_ingest_and_every_file_is_accounted_for(
    cohort: Path, tmp_path: Path
) -> None:
    from meta_dx.cohort.ingest import ingest_folder
    from meta_dx.home import Home

    found = [ingest_folder(Home.open(tmp_path / "h"), cohort / part) for part in ("first", "second")]
    rejected = sum((Counter(one.rejected) for one in found), Counter())
    assert {"truncated", "no_pixel_data", "missing_identifier", "missing_patient"} <= set(rejected)
    assert sum(one.duplicates for one in found) >= 5
    assert sum(one.not_dicom for one in found) >= 2
    files = sum(path.is_file() for part in ("first", "second") for path in (cohort / part).rglob("*"))
    assert sum(one.found for one in found) == files


def test_some_studies_have_no_diagnosis_and_no_header_tells_it(
    datasets: dict[str, pydicom.Dataset], cohort: Path
) -> None:
    table = pd.read_csv(cohort / "diagnoses.csv", dtype=str)
    assert set(datasets) - set(table["study_instance_uid"])
    words = {word.lower() for name in table["meaning"] for word in name.split()} | set(
        table["code"].str.lower()
    )
    words |= {level for levels in FAMILIES.values() for level in levels}
    for dataset in datasets.values():
        text = " ".join(
            str(e.value).lower() for e in dataset.iterall() if e.VR not in ("OB", "OW", "UI", "SQ")
        )
        assert not any(word in text.split() for word in words)


def test_headers_alone_score_chance(datasets: dict[str, pydicom.Dataset], cohort: Path) -> None:
    table = pd.read_csv(cohort / "diagnoses.csv", dtype=str).drop_duplicates("patient_id")
    code = dict(zip(table["study_instance_uid"], table["code"], strict=True))
    uids = [uid for uid in datasets if uid in code]
    fields = [
        "Modality",
        "Manufacturer",
        "PhotometricInterpretation",
        "BitsStored",
        "Rows",
        "Columns",
        "PatientSex",
    ]
    words = pd.DataFrame([[str(datasets[uid].get(f, "")) for f in fields] for uid in uids], columns=fields)
    words["age"] = [str(datasets[uid].get("PatientAge", "000Y"))[:2] for uid in uids]
    features = pd.get_dummies(words).to_numpy(float)
    labels = np.array([code[uid] for uid in uids])
    common = [c for c, n in Counter(labels).items() if n >= 20]
    kept = np.isin(labels, common)
    score = cross_val_score(
        LogisticRegression(C=0.1, max_iter=300), features[kept], labels[kept], cv=4
    ).mean()
    most = Counter(labels[kept]).most_common(1)[0][1] / kept.sum()
    assert score < most + 0.08


def test_nearest_centroid_on_raw_pixels_stays_under_60_percent(
    datasets: dict[str, pydicom.Dataset], cohort: Path
) -> None:
    table = pd.read_csv(cohort / "diagnoses.csv", dtype=str)
    table = table[table["study_instance_uid"].isin(datasets)].drop_duplicates("patient_id")
    options = ImageOptions(size=32)
    pixels = np.stack(
        [preprocess(physical_pixels(datasets[u]), options).ravel() for u in table["study_instance_uid"]]
    ).astype(float)
    pixels = (pixels - pixels.mean(1, keepdims=True)) / pixels.std(1, keepdims=True)
    examples = Examples(
        table["study_instance_uid"].to_numpy(str),
        table["patient_id"].to_numpy(str),
        table["code"].to_numpy(str),
        tuple(np.array([row]) for row in range(len(table))),
    )
    right = []
    for plan in EpisodeSampler(examples, 5, 5, 10, 0).plans(200):
        centroids = np.stack([pixels[rows].mean(0) for rows in plan.support])
        for label, rows in enumerate(plan.query):
            distance = ((pixels[rows][:, None] - centroids) ** 2).sum(-1)
            right.append((distance.argmin(1) == label).mean())
    assert 0.2 < np.mean(right) < 0.6


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_family_only_the_diseases_built_on_it_lose_their_trait(family: str) -> None:
    """Every patient of an affected disease may show any level; of the others, everything stays to the letter."""
    whole, without = make_plan(0, 64, None), make_plan(0, 64, family)
    before = {study.uid: study for study in [*whole.first, *whole.second]}
    for study in [*without.first, *without.second]:
        old = before[study.uid]
        assert study.disease.levels == old.disease.levels
        if family in study.disease.levels:
            others = {f: level for f, level in study.look.levels.items() if f != family}
            assert others == {f: level for f, level in old.look.levels.items() if f != family}
        else:
            assert study.look.levels == old.look.levels
    affected = [s for s in [*without.first, *without.second] if family in s.disease.levels]
    kept = np.mean([s.look.levels[family] == s.disease.levels[family] for s in affected])
    assert kept == pytest.approx(1 / len(FAMILIES[family]), abs=0.08), "the trait tells nothing any more"


def test_wrong_options_are_refused_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(MetaDxError, match="texture"):
        write_phantom(tmp_path / "a", diseases=8, without="colour")
    with pytest.raises(MetaDxError, match="5 to 72"):
        write_phantom(tmp_path / "b", diseases=500)
