"""Faults of an export, each planted by a function of its own: the check that it fails, and what should be named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.cohort.validation_tables import SECONDARY_CAPTURE, Batch, clean_batch

Plant = Callable[[Batch], list[str]]
FAULTS: dict[str, tuple[str, Plant]] = {}


def fault(check: str, variant: str = "") -> Callable[[Plant], Plant]:
    """Register a function that plants one fault and returns what should be named."""

    def register(plant: Plant) -> Plant:
        FAULTS[f"{check}{'-' + variant if variant else ''}"] = (check, plant)
        return plant

    return register


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
    colour = batch.rows(modality="XC")[0]
    put(batch, [one], stored_max=4096.0)
    put(batch, [other], stored_min=-2049.0)
    put(batch, [colour], stored_max=256.0)
    return list(batch.instances["instance"][[one, other, colour]])


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
    rows = batch.rows(modality="CT")[4:7]
    put(batch, rows[:1], slice_thickness=0.0)
    put(batch, rows[1:2], slice_thickness=26.0)
    put(batch, rows[2:], slice_thickness=0.0, image_type="DERIVED\\SECONDARY\\MIP")
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
