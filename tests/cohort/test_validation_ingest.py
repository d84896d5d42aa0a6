"""Each fault of an export fails its own check and no other, naming the failing surrogates and the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from meta_dx.cohort.catalog import series_of, studies_of
from meta_dx.cohort.tables import frame_of
from meta_dx.cohort.validation import ValidationReport, ingest_checks, validate_batch
from meta_dx.home import Home
from tests.cohort.planted_faults import FAULTS, put
from tests.cohort.validation_tables import SECONDARY_CAPTURE, TODAY, Batch, clean_batch


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
        stored_min=np.nan,
        stored_max=np.nan,
    )
    report = validate(batch)
    assert not report.failures
    for name in ("patient_of_one_sex", "patient_age_steady", "age_plausible", "study_date_plausible"):
        assert report[name].checked == 0
        assert "none of" in report[name].observed
    for name in ("accession_of_one_patient", "slices_without_gap", "values_fit_stored_bits"):
        assert report[name].checked == 0


@pytest.mark.parametrize(
    "legitimate",
    ["two spacings", "only captures", "objects without pixels", "several slopes", "small batch"],
)
def test_what_only_looks_like_a_fault_passes(legitimate: str) -> None:
    batch = clean_batch()
    if legitimate == "two spacings":
        stack = batch.rows(series=batch.instances["series"][batch.rows(modality="CT")[0]])
        put(batch, stack, position=np.array([0, 2.5, 5, 7.5, 10, 12.5, 17.5, 22.5]))
    elif legitimate == "only captures":
        put(batch, list(range(len(batch.instances))), sop_class=SECONDARY_CAPTURE, pixel_min=0.0)
    elif legitimate == "several slopes":
        # Or a modality LUT: the physical range says nothing about the stored one.
        put(batch, batch.rows(modality="DX"), rescale_slope=0.1, rescale_intercept=0.0)
    elif legitimate == "objects without pixels":
        batch.refuse(*["no_pixel_data", "not_a_picture"] * len(batch.instances))
    else:
        # A few studies of one patient, a few files cut off: neither a placeholder nor a broken transfer.
        batch.instances = batch.instances[batch.instances["patient"] == batch.patients(2)[0]].reset_index(
            drop=True
        )
        batch.refuse("truncated", "truncated")
    assert not validate(batch, compare=legitimate != "only captures").failures


@pytest.mark.parametrize(
    ("modality", "image_type", "thickness", "plausible"),
    [
        ("MR", "ORIGINAL\\PRIMARY\\M", 80.0, True),
        ("MR", "ORIGINAL\\PRIMARY\\M", 500.0, False),
        ("CT", "ORIGINAL\\PRIMARY\\AXIAL", 80.0, False),
        ("CT", "DERIVED\\SECONDARY\\MIP", 80.0, True),
    ],
)
def test_slabs_and_projections_are_thick(
    modality: str, image_type: str, thickness: float, plausible: bool
) -> None:
    batch = clean_batch()
    stack = batch.rows(series=batch.instances["series"][batch.rows(modality="CT")[0]])
    put(batch, stack, modality=modality, image_type=image_type, slice_thickness=thickness)
    assert validate(batch, compare=False)["slice_thickness_plausible"].passed == plausible


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
