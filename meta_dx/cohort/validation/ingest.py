"""The suite ``ingest``: how a hospital's export goes wrong, seen in the tables of one ingest batch.

What single files are refused for is decided at ingest (:mod:`meta_dx.dicom.rejections`); here is what only
shows when files are seen together, and what a refusal means for the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping

from meta_dx.cohort.validation.archive import THICKEST, THINNEST
from meta_dx.cohort.validation.checks import CheckSpec, Severity, Unit, between
from meta_dx.dicom.quarantine import QUARANTINED

#: Refusals of ingest for want of a decoder.
NO_DECODER = ("unsupported_transfer_syntax", "unsupported_photometric")
#: Share of damaged files above which the batch counts as broken, and how many they must be at least.
DAMAGED_SHARE, DAMAGED_AT_LEAST = 0.2, 5
#: A patient who holds more than this share of a batch of at least so many studies is a placeholder.
PLACEHOLDER_SHARE, PLACEHOLDER_STUDIES = 0.5, 20
SMALLEST_SIDE = 32
#: Older patients have a placeholder for a birth date (1900-01-01).
OLDEST_AGE = 110
#: Years by which the birth dates implied by age and study date of one patient may differ: ages are whole
#: years.
BIRTH_TOLERANCE = 2.0
#: Lung, bowel gas or the air around the patient is in every CT series; all of it lies below this.
HIGHEST_AIR = -200


def _check(
    name: str, severity: Severity, unit: Unit, fault: str, expectation: str, settings: Mapping[str, object]
) -> CheckSpec:
    return CheckSpec(name, "ingest", fault, severity, unit, expectation, settings)


_BETWEEN = "ExpectColumnValuesToBeBetween"
_NOT_IN = "ExpectColumnValuesToNotBeInSet"

CHECKS: tuple[CheckSpec, ...] = (
    _check(
        "batch_has_images",
        "warning",
        "image",
        "The batch brought no image at all: a wrong folder, an empty export, or everything in it was refused "
        "or known already.",
        "ExpectTableRowCountToBeBetween",
        {"min_value": 1},
    ),
    _check(
        "few_files_damaged",
        "blocking",
        "file",
        "More than a fifth of the image files is cut off or damaged: the transfer or the disk broke, and "
        "what is left is not what the hospital sent.",
        _NOT_IN,
        {"column": "condition", "value_set": ["damaged"], "mostly": 1 - DAMAGED_SHARE},
    ),
    _check(
        "study_of_one_patient",
        "blocking",
        "file",
        "One study stands under two patients: the export or an anonymiser mixed up two people, and nobody "
        "can say whose images they are.",
        _BETWEEN,
        between("patients_of_study", 1, 1),
    ),
    _check(
        "series_of_one_study",
        "blocking",
        "file",
        "One series stands in two studies: a gateway used UIDs again, and images may carry another study's "
        "diagnosis.",
        _BETWEEN,
        between("studies_of_series", 1, 1),
    ),
    _check(
        "instance_uid_of_one_image",
        "warning",
        "file",
        "Two different images share one SOP instance UID (sent again after a change, or UIDs made up by a "
        "converter): only the first was taken.",
        _BETWEEN,
        between("contents_of_uid", 1, 1),
    ),
    _check(
        "patient_id_given",
        "warning",
        "file",
        "Images came without a patient id, so they were left out: the export removed it instead of "
        "replacing it.",
        _NOT_IN,
        {"column": "refused_for", "value_set": ["missing_patient"]},
    ),
    _check(
        "modality_given",
        "warning",
        "file",
        "Images came without a modality, so they were left out.",
        _NOT_IN,
        {"column": "refused_for", "value_set": ["missing_modality"]},
    ),
    _check(
        "compression_readable",
        "warning",
        "file",
        "Images are compressed or coloured in a way that no installed decoder reads, so they were left out: "
        "often all images of one scanner.",
        _NOT_IN,
        {"column": "refused_for", "value_set": list(NO_DECODER)},
    ),
    _check(
        "nothing_quarantined",
        "warning",
        "file",
        "Pictures stayed out because they may show whose they are (screenshots, ultrasound, burned-in text): "
        "look at them, and allow their kind if they show nobody's name.",
        _NOT_IN,
        {"column": "refused_for", "value_set": [str(code) for code in QUARANTINED]},
    ),
    _check(
        "body_part_given",
        "warning",
        "image",
        "A radiological image does not say which body part it shows, so no rule can choose it by body part.",
        _NOT_IN,
        {"column": "body_part_state", "value_set": ["missing"]},
    ),
    _check(
        "image_not_blank",
        "warning",
        "image",
        "An image is blank: all its pixels have one value.",
        _NOT_IN,
        {"column": "picture", "value_set": ["blank"]},
    ),
    _check(
        "image_not_thumbnail",
        "warning",
        "image",
        f"An image is a thumbnail or an icon: a side is shorter than {SMALLEST_SIDE} pixels.",
        _BETWEEN,
        between("shorter_side", SMALLEST_SIDE),
    ),
    _check(
        "no_screenshot_in_study",
        "warning",
        "image",
        "A secondary capture (screenshot, dose sheet, scanned form, often with text burnt in) lies among "
        "the acquired images of a study.",
        _NOT_IN,
        {"column": "origin", "value_set": ["screenshot"]},
    ),
    _check(
        "values_fit_stored_bits",
        "warning",
        "image",
        "Pixel values lie outside what the stored bits can hold: the compressed picture is deeper than its "
        "header says, as after a faulty recompression.",
        _NOT_IN,
        {"column": "pixel_range", "value_set": ["outside the stored bits"]},
    ),
    _check(
        "picture_of_one_patient",
        "warning",
        "image",
        "The very same picture stands under two patients: one person with two ids, or an image filed under "
        "the wrong one.",
        _BETWEEN,
        between("patients_of_picture", 1, 1),
    ),
    _check(
        "picture_once_per_patient",
        "warning",
        "image",
        "The very same picture stands twice under one patient with different UIDs: it was sent twice, or "
        "copied into a second study, and would count double.",
        _BETWEEN,
        between("copies_of_picture", 1, 1),
    ),
    _check(
        "expected_tags_given",
        "warning",
        "image",
        "An image lacks what its modality always states: position, orientation, pixel spacing or frame of "
        "reference of a slice, the view of a radiograph; an export or an anonymiser emptied it.",
        "ExpectColumnValuesToBeInSet",
        {"column": "tags_of_modality", "value_set": ["complete"]},
    ),
    _check(
        "pixel_spacing_plausible",
        "warning",
        "image",
        "The distance of the pixels is impossible for the modality: another unit, or a slipped decimal point.",
        _NOT_IN,
        {"column": "pixel_spacing_place", "value_set": ["impossible"]},
    ),
    _check(
        "slice_thickness_plausible",
        "warning",
        "image",
        f"A slice is thinner than {THINNEST:g} mm or, unless it is derived, thicker than {THICKEST['CT']:g} mm "
        f"({THICKEST['MR']:g} in MR): a placeholder or another unit.",
        _NOT_IN,
        {"column": "slice_thickness_place", "value_set": ["impossible"]},
    ),
    _check(
        "laterality_given",
        "warning",
        "image",
        "An image of a part of the body of which there are two does not say which side it shows.",
        _NOT_IN,
        {"column": "laterality_state", "value_set": ["missing"]},
    ),
    _check(
        "laterality_plausible",
        "warning",
        "image",
        "The side of an image is none of R, L, U, B, or its body part or view names the other side.",
        _NOT_IN,
        {"column": "laterality_place", "value_set": ["no side", "contradicts body part or view"]},
    ),
    _check(
        "series_of_one_frame_of_reference",
        "warning",
        "series",
        "One series has two frames of reference: the patient was moved, or series were merged, and positions "
        "cannot be compared.",
        _BETWEEN,
        between("frames_of_reference", 1, 1),
    ),
    _check(
        "ct_range_plausible",
        "warning",
        "series",
        "A CT series holds no tissue at all, or values beyond every scale: its rescale was applied twice or is "
        "another one's.",
        _NOT_IN,
        {"column": "ct_range", "value_set": ["no tissue", "beyond the scale"]},
    ),
    _check(
        "age_not_falling",
        "warning",
        "study",
        "A patient is younger than at an earlier study: a wrong date, or another person's study.",
        _NOT_IN,
        {"column": "age_course", "value_set": ["falling"]},
    ),
    _check(
        "intensity_like_cohort",
        "warning",
        "modality",
        "The grey values of a modality lie outside of those of the cohort that networks were trained for: "
        "another scanner, another protocol, a lost rescale or a window burnt in.",
        "ExpectColumnValuesToBeNull",
        {"column": "intensity_change"},
    ),
    _check(
        "series_of_one_modality",
        "warning",
        "series",
        "One series holds images of two modalities: headers were edited or series merged.",
        _BETWEEN,
        between("modalities_of_series", 1, 1),
    ),
    _check(
        "slices_without_gap",
        "warning",
        "series",
        "Slices are missing inside a stack: the transfer of the series stopped and was resumed.",
        _BETWEEN,
        between("gaps_in_stack", high=0),
    ),
    _check(
        "ct_in_hounsfield_units",
        "warning",
        "series",
        "A CT series has no value near that of air: its rescale was lost, and its values are not Hounsfield "
        "units.",
        _BETWEEN,
        between("lowest_ct_value", high=HIGHEST_AIR),
    ),
    _check(
        "study_in_one_batch",
        "warning",
        "study",
        "A study arrived in pieces, in more than one batch: it was ingested while it was still being sent.",
        _BETWEEN,
        between("batches_of_study", 1, 1),
    ),
    _check(
        "accession_of_one_patient",
        "warning",
        "study",
        "One accession number stands under two patients: an order was filed under the wrong person, or two "
        "sites count alike.",
        _BETWEEN,
        between("patients_of_accession", 1, 1),
    ),
    _check(
        "age_plausible",
        "warning",
        "study",
        f"An age is above {OLDEST_AGE} years: the birth date is a placeholder (1900-01-01) or belongs to "
        "somebody else.",
        _BETWEEN,
        between("age_years", 0, OLDEST_AGE),
    ),
    _check(
        "study_date_plausible",
        "warning",
        "study",
        "A study date lies before 1970 or in the future: a placeholder or a slipped digit.",
        _NOT_IN,
        {"column": "study_date_place", "value_set": ["too early", "in the future"]},
    ),
    _check(
        "patient_of_one_sex",
        "warning",
        "patient",
        "One patient is male in one study and female in another: two people may share the id.",
        _BETWEEN,
        between("sexes_of_patient", 1, 1),
    ),
    _check(
        "patient_age_steady",
        "warning",
        "patient",
        "The ages of one patient contradict each other: age and study date give birth dates more than "
        f"{BIRTH_TOLERANCE:g} years apart, so two people may share the id.",
        _BETWEEN,
        between("birth_date_spread", high=BIRTH_TOLERANCE),
    ),
    _check(
        "patient_id_not_placeholder",
        "blocking",
        "patient",
        f"One patient holds more than half of a batch of at least {PLACEHOLDER_STUDIES} studies: an "
        "anonymiser gave everybody the same id.",
        _BETWEEN,
        between("share_of_studies", high=PLACEHOLDER_SHARE),
    ),
)
