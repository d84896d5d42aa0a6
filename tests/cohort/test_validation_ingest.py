"""Each fault of an export fails its own check and no other, naming the failing surrogates and the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from meta_dx.cohort.catalog import series_of, studies_of
from meta_dx.cohort.tables import frame_of
from meta_dx.cohort.validation import ValidationReport, ingest_checks, validate_batch
from meta_dx.home import Home
from tests.cohort.validation_tables import SECONDARY_CAPTURE, TODAY, Batch, clean_batch

Plant = Callable[[Batch], list[str]]
FAULTS: dict[str, tuple[str, Plant]] = {}


def fault(check: str, variant: str = "") -> Callable[[Plant], Plant]:
    """Register a function that plants one fault and returns what should be named."""

    def register(plant: Plant) -> Plant:
        FAULTS[f"{check}{'-' + variant if variant else ''}"] = (check, plant)
        return plant

    return register


def validate(batch: Batch, *, compare: bool = True) -> ValidationReport:
    taken = batch.taken()
    others = None if batch.others is None else frame_of("instances", batch.others.to_dict("records"))
    return validate_batch(
        Home(None),  # type: ignore[arg-type]  # nothing is written without docs
        batch.name,
        taken,
        batch.refused(),
        studies_of(taken),
        series_of(taken),
        others=others,
        fingerprint=cohort_before() if compare else None,
        today=TODAY,
        docs=False,
    )


def cohort_before() -> dict[str, Any]:
    """What the fingerprint says of a cohort that was drawn like the batches."""
    pictures = {"pixel_std": {"p5": 90.0, "p95": 110.0}}
    levels = {"DX": (0.0, 4095.0), "CT": (-1024.0, 3071.0), "XC": (0.0, 255.0)}
    return {
        "instances": {"modality": {"DX": 500, "CT": 900, "XC": 5}},
        "physical_units": {
            modality: pictures
            | {"pixel_min": {"p5": low, "p95": low}, "pixel_max": {"p5": high, "p95": high}}
            for modality, (low, high) in levels.items()
        },
    }


def put(batch: Batch, at: list[int], /, **values: object) -> None:
    for column, value in values.items():
        batch.instances.loc[at, column] = value


@fault("batch_has_images")
def _(batch: Batch) -> list[str]:
    batch.instances = batch.instances[:0]
    return []


@fault("few_files_damaged")
def _(batch: Batch) -> list[str]:
    # 1 in 5 is allowed; one of them is truncated in the clean batch already.
    whole = len(batch.instances)
    # Reports and plans are no images: however many there are, they make the loss no smaller.
    batch.refuse(*["no_pixel_data"] * 10 * whole)
    names = batch.refuse(*["truncated", "damaged_pixels", "damaged_header"] * (whole // 12 + 1))
    return [batch.rejections.loc[batch.rejections["code"] == "truncated", "file"].iloc[0], *names]


@fault("study_of_one_patient", "refused at ingest")
def _(batch: Batch) -> list[str]:
    return batch.refuse("study_of_two_patients")


@fault("study_of_one_patient", "both taken")
def _(batch: Batch) -> list[str]:
    row = batch.rows(modality="DX")[0]
    put(batch, [row], patient="P" + "Z" * 16)
    return list(batch.instances["instance"][batch.rows(study=batch.instances["study"][row])])


@fault("study_of_one_patient", "across batches")
def _(batch: Batch) -> list[str]:
    others = clean_batch("b0001", seed=1)
    row = batch.rows(modality="XC")[0]
    put(others, others.rows(modality="XC")[:1], study=batch.instances["study"][row])
    batch.others = others.instances
    return [batch.instances["instance"][row]]


@fault("series_of_one_study", "refused at ingest")
def _(batch: Batch) -> list[str]:
    return batch.refuse("series_of_two_studies")


@fault("series_of_one_study", "both taken")
def _(batch: Batch) -> list[str]:
    row = batch.rows(modality="DX")[0]
    put(batch, [row], study="2.25.1999", accession=None)
    return list(batch.instances["instance"][batch.rows(series=batch.instances["series"][row])])


@fault("instance_uid_of_one_image", "refused at ingest")
def _(batch: Batch) -> list[str]:
    return batch.refuse("conflicting_instance")


@fault("instance_uid_of_one_image", "in two series")
def _(batch: Batch) -> list[str]:
    one, other = batch.rows(modality="XC")[:2]
    put(batch, [other], instance=batch.instances["instance"][one])
    return [batch.instances["instance"][one]]


@fault("patient_id_given")
def _(batch: Batch) -> list[str]:
    return batch.refuse("missing_patient", "missing_patient")


@fault("modality_given")
def _(batch: Batch) -> list[str]:
    return batch.refuse("missing_modality")


@fault("compression_readable")
def _(batch: Batch) -> list[str]:
    return batch.refuse(*["unsupported_transfer_syntax"] * 40, "unsupported_photometric")


@fault("body_part_given")
def _(batch: Batch) -> list[str]:
    put(batch, batch.rows(modality="DX")[:2], body_part=" ")
    return list(batch.instances["instance"][batch.rows(modality="DX")[:2]])


@fault("image_not_blank")
def _(batch: Batch) -> list[str]:
    # Blank pictures of two patients, and two of one study, are alike: still only blank.
    rows = [*batch.rows(modality="CT")[:2], batch.rows(modality="CT")[-1]]
    put(batch, rows, pixel_max=-1024.0, pixel_std=0.0, pixels="xblank")
    return list(batch.instances["instance"][rows])


@fault("image_not_thumbnail")
def _(batch: Batch) -> list[str]:
    put(batch, [3], rows=31)
    return [batch.instances["instance"][3]]


@fault("no_screenshot_in_study")
def _(batch: Batch) -> list[str]:
    row = batch.rows(modality="CT")[0]
    return [
        batch.add(
            row, sop_class=SECONDARY_CAPTURE + kind, series=f"2.25.277{i}", position=np.nan, pixel_min=0.0
        )
        for i, kind in enumerate(["", ".4"])
    ]


@fault("values_fit_stored_bits")
def _(batch: Batch) -> list[str]:
    one, other = batch.rows(modality="DX")[:2]
    put(batch, [one], pixel_max=4095.0 + 60_000)
    put(batch, [other], pixel_min=-2100.0)
    return list(batch.instances["instance"][[one, other]])


@fault("picture_of_one_patient")
def _(batch: Batch) -> list[str]:
    one, other = batch.rows(modality="XC")[:2]
    put(batch, [other], pixels=batch.instances["pixels"][one])
    return list(batch.instances["instance"][[one, other]])


@fault("picture_of_one_patient", "across batches")
def _(batch: Batch) -> list[str]:
    others = clean_batch("b0001", seed=1)
    row = batch.rows(modality="XC")[0]
    put(others, others.rows(modality="XC")[:1], pixels=batch.instances["pixels"][row])
    batch.others = others.instances
    return [batch.instances["instance"][row]]


@fault("picture_once_per_patient", "in two studies")
def _(batch: Batch) -> list[str]:
    row = batch.rows(patient=batch.patients(1)[0])[0]
    again = {"study": "2.25.1777", "series": "2.25.2777", "accession": None}
    copy = batch.add(row, pixels=batch.instances["pixels"][row], **again)
    return [batch.instances["instance"][row], copy]


@fault("picture_once_per_patient", "across batches")
def _(batch: Batch) -> list[str]:
    row = batch.rows(patient=batch.patients(1)[0])[0]
    earlier = Batch(batch.instances.copy(), batch.rejections)
    again = {"batch": "b0001", "study": "2.25.1777", "series": "2.25.2777", "accession": None}
    earlier.add(row, pixels=batch.instances["pixels"][row], **again)
    batch.others = earlier.instances[-1:]
    return [batch.instances["instance"][row]]


@fault("picture_once_per_patient", "in one study")
def _(batch: Batch) -> list[str]:
    row = batch.rows(modality="XC")[0]
    copy = batch.add(row, pixels=batch.instances["pixels"][row])
    return [batch.instances["instance"][row], copy]


@fault("nothing_quarantined")
def _(batch: Batch) -> list[str]:
    # However many: pictures that stay out by choice are no damaged ones.
    return batch.refuse(*["ultrasound", "secondary_capture", "burned_in_annotation"] * len(batch.instances))


@fault("expected_tags_given", "a slice")
def _(batch: Batch) -> list[str]:
    rows = batch.rows(modality="CT")[:3]
    put(batch, rows[:1], spacing_down=np.nan, spacing_across=np.nan)
    put(batch, rows[1:2], frame_of_reference=None)
    put(batch, rows[2:3], position_x=np.nan)
    return list(batch.instances["instance"][rows])


@fault("expected_tags_given", "a radiograph")
def _(batch: Batch) -> list[str]:
    rows = batch.rows(modality="DX")[2:4]
    put(batch, rows, view=None)
    return list(batch.instances["instance"][rows])


@fault("pixel_spacing_plausible")
def _(batch: Batch) -> list[str]:
    row = batch.rows(modality="CT")[4]
    put(batch, [row], spacing_down=500.0)
    return [batch.instances["instance"][row]]


@fault("slice_thickness_plausible")
def _(batch: Batch) -> list[str]:
    rows = batch.rows(modality="CT")[4:6]
    put(batch, rows[:1], slice_thickness=0.0)
    put(batch, rows[1:], slice_thickness=500.0)
    return list(batch.instances["instance"][rows])


@fault("laterality_given")
def _(batch: Batch) -> list[str]:
    rows = batch.rows(modality="DX")[:2]
    put(batch, rows, body_part="KNEE")
    return list(batch.instances["instance"][rows])


@fault("laterality_plausible", "against the body part")
def _(batch: Batch) -> list[str]:
    rows = batch.rows(modality="DX")[:2]
    put(batch, rows, body_part="LEFT KNEE", laterality="R")
    return list(batch.instances["instance"][rows])


@fault("laterality_plausible", "against the view")
def _(batch: Batch) -> list[str]:
    row = batch.rows(modality="DX")[3]
    put(batch, [row], view="LCC", laterality="R")
    return [batch.instances["instance"][row]]


@fault("laterality_plausible", "no side")
def _(batch: Batch) -> list[str]:
    row = batch.rows(modality="DX")[3]
    put(batch, [row], laterality="X")
    return [batch.instances["instance"][row]]


@fault("series_of_one_frame_of_reference")
def _(batch: Batch) -> list[str]:
    row = batch.rows(modality="CT")[0]
    put(batch, [row], frame_of_reference="2.25.4999")
    return [batch.instances["series"][row]]


@fault("ct_range_plausible", "no tissue")
def _(batch: Batch) -> list[str]:
    stack = batch.rows(series=batch.instances["series"][batch.rows(modality="CT")[0]])
    put(batch, stack, pixel_min=-4120.0, pixel_max=-25.0, rescale_intercept=-4120.0)
    return [batch.instances["series"][stack[0]]]


@fault("ct_range_plausible", "beyond the scale")
def _(batch: Batch) -> list[str]:
    stack = batch.rows(series=batch.instances["series"][batch.rows(modality="CT")[0]])
    put(batch, stack, pixel_min=-1024.0, pixel_max=61_000.0, bits_stored=16)
    return [batch.instances["series"][stack[0]]]


@fault("age_not_falling", "two visits")
def _(batch: Batch) -> list[str]:
    earlier, later = batch.visits(batch.patients(2)[0])
    put(batch, batch.rows(study=earlier), age_years=50.0, study_date="2020-03-01")
    put(batch, batch.rows(study=later), age_years=49.0, study_date="2020-09-01")
    return [later]


@fault("age_not_falling", "across batches")
def _(batch: Batch) -> list[str]:
    others = clean_batch("b0001", seed=1)
    patient = batch.patients(1)[0]
    put(others, others.rows(patient=others.patients(1)[0]), patient=patient, sex=None)
    put(others, others.rows(patient=patient), age_years=61.0, study_date="2018-05-01")
    put(batch, batch.rows(patient=patient), age_years=60.0, study_date="2018-08-01")
    batch.others = others.instances
    return batch.visits(patient)


@fault("intensity_like_cohort")
def _(batch: Batch) -> list[str]:
    # A window was burnt in: eight bits where the cohort has twelve.
    rows = batch.rows(modality="DX")
    put(batch, rows, pixel_max=255.0)
    return list(batch.instances["series"][rows])


@fault("series_of_one_modality")
def _(batch: Batch) -> list[str]:
    row = batch.rows(modality="DX")[0]
    put(batch, [row], modality="US")
    return [batch.instances["series"][row]]


@fault("slices_without_gap", "one slice")
def _(batch: Batch) -> list[str]:
    stack = batch.rows(series=batch.instances["series"][batch.rows(modality="CT")[0]])
    series = batch.instances["series"][stack[0]]
    batch.instances = batch.instances.drop(index=stack[4]).reset_index(drop=True)
    return [series]


@fault("slices_without_gap", "a block")
def _(batch: Batch) -> list[str]:
    stack = batch.rows(series=batch.instances["series"][batch.rows(modality="CT")[0]])
    series = batch.instances["series"][stack[0]]
    batch.instances = batch.instances.drop(index=stack[2:5]).reset_index(drop=True)
    return [series]


@fault("ct_in_hounsfield_units")
def _(batch: Batch) -> list[str]:
    series = batch.instances["series"][batch.rows(modality="CT")[0]]
    put(batch, batch.rows(series=series), rescale_intercept=0.0, pixel_min=0.0, pixel_max=4095.0)
    return [series]


@fault("study_in_one_batch")
def _(batch: Batch) -> list[str]:
    row = batch.rows(modality="DX")[0]
    piece = Batch(batch.instances.copy(), batch.rejections)
    piece.add(row, batch="b0001")
    batch.others = piece.instances[-1:]
    return [batch.instances["study"][row]]


@fault("accession_of_one_patient")
def _(batch: Batch) -> list[str]:
    studies = [batch.visits(patient)[0] for patient in batch.patients(1)[:2]]
    for study in studies:
        put(batch, batch.rows(study=study), accession="A" + "Q" * 15)
    return studies


@fault("age_plausible")
def _(batch: Batch) -> list[str]:
    patient = batch.patients(2)[0]
    put(batch, batch.rows(patient=patient), age_years=123.0)
    return batch.visits(patient)


@fault("study_date_plausible", "in the future")
def _(batch: Batch) -> list[str]:
    study = batch.visits(batch.patients(1)[0])[0]
    put(batch, batch.rows(study=study), study_date="2026-11-24")
    return [study]


@fault("study_date_plausible", "a placeholder")
def _(batch: Batch) -> list[str]:
    study = batch.visits(batch.patients(1)[0])[0]
    put(batch, batch.rows(study=study), study_date="1899-06-30")
    return [study]


@fault("patient_of_one_sex")
def _(batch: Batch) -> list[str]:
    patient = batch.patients(2)[0]
    for study, sex in zip(batch.visits(patient), "MF", strict=True):
        put(batch, batch.rows(study=study), sex=sex)
    return [patient]


@fault("patient_age_steady", "two visits")
def _(batch: Batch) -> list[str]:
    patient = batch.patients(2)[0]
    rows = batch.rows(study=batch.visits(patient)[1])
    put(batch, rows, age_years=batch.instances["age_years"][rows[0]] + 4)
    return [patient]


@fault("patient_age_steady", "across batches")
def _(batch: Batch) -> list[str]:
    patient = batch.patients(1)[0]
    row = batch.rows(patient=patient)[0]
    earlier = Batch(batch.instances.copy(), batch.rejections)
    age = earlier.instances["age_years"][row] - 9
    earlier.add(row, batch="b0001", study="2.25.1888", series="2.25.2888", accession=None, age_years=age)
    batch.others = earlier.instances[-1:]
    return [patient]


@fault("patient_id_not_placeholder")
def _(batch: Batch) -> list[str]:
    studies = list(dict.fromkeys(batch.instances["study"]))
    for study in studies[: len(studies) // 2 + 1]:
        put(batch, batch.rows(study=study), patient="P" + "A" * 16, sex=None, age_years=np.nan)
    return ["P" + "A" * 16]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_clean_batch_passes_every_check(seed: int) -> None:
    batch = clean_batch(seed=seed)
    batch.others = pd.concat([clean_batch("b0001", seed=7).instances, batch.instances])
    report = validate(batch)
    assert [result.name for result in report.results] == [check.name for check in ingest_checks()]
    assert not report.failures
    assert report.passed_blocking
    assert all(result.failed == 0 and not result.failing for result in report.results)
    # No part of the body of which there are two.
    unchecked = {result.name for result in report.results if not result.checked}
    assert unchecked == {"laterality_given", "laterality_plausible"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_fails_its_own_check_and_no_other(name: str) -> None:
    check, plant = FAULTS[name]
    batch = clean_batch()
    expected = plant(batch)

    report = validate(batch)

    assert [failure.name for failure in report.failures] == [check]
    result = report[check]
    severity = next(c.severity for c in ingest_checks() if c.name == check)
    assert result.severity == severity
    assert report.passed_blocking == (severity == "warning")
    if expected:
        assert set(result.failing) <= set(expected)
        assert len(result.failing) == min(20, len(set(expected)))
        if result.unit == "modality":  # it is counted, its series are named
            expected = expected[:1]
        assert len(expected) - 1 <= result.failed <= len(expected) + 1
        assert set(result.failing_batches) == {"b0002"}
    assert result.batch == "b0002"
    assert not result.observed.startswith("nothing to check")


def test_every_check_has_a_planted_fault() -> None:
    assert {check for check, _ in FAULTS.values()} == {check.name for check in ingest_checks()}


def test_a_batch_without_images_says_that_there_was_nothing_to_check() -> None:
    batch = clean_batch()
    batch.instances, batch.rejections = batch.instances[:0], batch.rejections[:0]
    report = validate(batch)
    assert [failure.name for failure in report.failures] == ["batch_has_images"]
    for result in report.results[1:]:
        assert result.checked == 0
        assert result.observed.startswith("nothing to check")


def test_what_is_not_known_is_not_checked() -> None:
    batch = clean_batch()
    put(
        batch,
        batch.rows(batch="b0002"),
        sex=None,
        age_years=np.nan,
        study_date=None,
        accession=None,
        position=np.nan,
    )
    report = validate(batch)
    assert not report.failures
    for name in ("patient_of_one_sex", "patient_age_steady", "age_plausible", "study_date_plausible"):
        assert report[name].checked == 0
        assert "none of" in report[name].observed
    assert report["accession_of_one_patient"].checked == report["slices_without_gap"].checked == 0


@pytest.mark.parametrize(
    "legitimate", ["two spacings", "only captures", "objects without pixels", "small batch"]
)
def test_what_only_looks_like_a_fault_passes(legitimate: str) -> None:
    batch = clean_batch()
    if legitimate == "two spacings":
        stack = batch.rows(series=batch.instances["series"][batch.rows(modality="CT")[0]])
        put(batch, stack, position=np.array([0, 2.5, 5, 7.5, 10, 12.5, 17.5, 22.5]))
    elif legitimate == "only captures":
        put(batch, list(range(len(batch.instances))), sop_class=SECONDARY_CAPTURE, pixel_min=0.0)
    elif legitimate == "objects without pixels":
        batch.refuse(*["no_pixel_data", "not_a_picture"] * len(batch.instances))
    else:
        # A few studies of one patient, a few files cut off: neither a placeholder nor a broken transfer.
        batch.instances = batch.instances[batch.instances["patient"] == batch.patients(2)[0]].reset_index(
            drop=True
        )
        batch.refuse("truncated", "truncated")
    assert not validate(batch, compare=legitimate != "only captures").failures


def test_named_identifiers_are_capped_and_the_count_is_complete() -> None:
    batch = clean_batch()
    put(batch, batch.rows(modality="CT"), body_part=None)
    result = validate(batch)["body_part_given"]
    assert result.failed == len(batch.rows(modality="CT")) > 20
    assert len(result.failing) == len(set(result.failing)) == 20
    assert f"{result.failed} of {result.checked} images fail" in result.observed


def test_a_missing_column_is_our_fault_and_never_a_result() -> None:
    from meta_dx.cohort.validation.checks import CheckSpec, CheckTable, between
    from meta_dx.cohort.validation.runner import run_checks

    table = CheckTable("image", pd.DataFrame({"batch": ["b1"], "instance": ["2.25.1"]}), "instance")
    check = CheckSpec(
        "a", "ingest", "A.", "warning", "image", "ExpectColumnValuesToBeBetween", between("gone", 1)
    )
    with pytest.raises(RuntimeError, match="check a could not be evaluated"):
        run_checks({"image": table}, [check], suite="ingest", batch="b1")
