"""Each fault of a label table fails its own check and no other, naming the studies and their batches."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_dx.cohort.catalog import studies_of
from meta_dx.cohort.validation import ValidationReport, diagnosis_checks, validate_diagnoses
from meta_dx.cohort.validation.columns import canonical_codes
from meta_dx.cohort.validation.diagnoses import MANGLED
from meta_dx.home import Home
from tests.cohort.validation_tables import TODAY, Batch, clean_batch, clean_diagnoses, stored


class Cohort:
    """Two batches and their label table, to be changed in place."""

    def __init__(self) -> None:
        first, second = clean_batch("b0001", seed=1, patients=40), clean_batch("b0002", seed=2, patients=40)
        self.batch = Batch(
            pd.concat([first.instances, second.instances], ignore_index=True), first.rejections
        )
        self.diagnoses = clean_diagnoses(studies_of(self.batch.taken()))
        self.before: dict[str, int] = {}

    def batches(self, studies: list[str]) -> set[str]:
        own = self.batch.instances[self.batch.instances["study"].isin(studies)]
        return set(own["batch"])

    def rows(self, code: str) -> list[int]:
        return [int(i) for i in np.flatnonzero(self.diagnoses["code"] == code)]

    def put(self, at: list[int], /, **values: object) -> list[str]:
        """Change rows of the label table and return their studies."""
        for column, value in values.items():
            self.diagnoses.loc[at, column] = value
        return list(self.diagnoses["study"][at])

    def repeat(self, at: list[int], /, **values: object) -> list[str]:
        """Add copies of rows of the label table with other values and return their studies."""
        copies = self.diagnoses.loc[at].assign(**values)
        self.diagnoses = pd.concat([self.diagnoses, copies], ignore_index=True)
        return list(copies["study"])

    def validate(self) -> ValidationReport:
        taken = self.batch.taken()
        return validate_diagnoses(
            Home(None),  # type: ignore[arg-type]  # nothing is written without docs
            stored(self.diagnoses),
            studies_of(taken),
            taken,
            fingerprint={"prevalence": self.before} if self.before else None,
            today=TODAY,
            docs=False,
        )


Plant = Callable[[Cohort], list[str]]
FAULTS: dict[str, tuple[str, Plant]] = {}


def fault(check: str, variant: str = "") -> Callable[[Plant], Plant]:
    """Register a function that plants one fault and returns the studies that should be named."""

    def register(plant: Plant) -> Plant:
        FAULTS[f"{check}{'-' + variant if variant else ''}"] = (check, plant)
        return plant

    return register


@fault("table_has_rows")
def _(cohort: Cohort) -> list[str]:
    cohort.diagnoses = cohort.diagnoses[:0]
    return []


@fault("table_joins_studies")
def _(cohort: Cohort) -> list[str]:
    # A spreadsheet keeps 15 digits of a UID.
    lost = list(range(len(cohort.diagnoses) * 2 // 3))
    return cohort.put(lost, study=[f"2.25.{i}00000000000000" for i in lost])


@fault("study_ingested")
def _(cohort: Cohort) -> list[str]:
    return cohort.put([0, 5], study=["2.25.777", "2.25.778"])


@fault("patient_matches_images", "two rows swapped")
def _(cohort: Cohort) -> list[str]:
    one, other = (cohort.diagnoses.loc[i, ["patient", "accession"]] for i in (2, 30))
    cohort.put([2], patient=other["patient"], accession=other["accession"])
    cohort.put([30], patient=one["patient"], accession=one["accession"])
    return list(cohort.diagnoses["study"][[2, 30]])


@fault("patient_matches_images", "unknown patient")
def _(cohort: Cohort) -> list[str]:
    return cohort.put([7], patient="P" + "N" * 16)


@fault("accession_matches_images")
def _(cohort: Cohort) -> list[str]:
    row = int(np.flatnonzero(cohort.diagnoses["accession"].notna())[3])
    return cohort.put([row], accession="A" + "N" * 15)


@fault("code_not_placeholder")
def _(cohort: Cohort) -> list[str]:
    return [
        *cohort.put([1], code="?", meaning=None),
        *cohort.put([9], code=" N/A", meaning="not available"),
        *cohort.put([17], code="Unknown", meaning="UNKNOWN"),
    ]


@fault("code_not_mangled")
def _(cohort: Cohort) -> list[str]:
    return cohort.put(cohort.rows("1E50.0"), code="1E+50")


@pytest.mark.parametrize(
    "code",
    ["1E+50", "2.55E+08", "2-Mar", "02. Dez", "Sept-99", "254837009.0", "#NAME?", "#####"],
)
def test_what_spreadsheets_make_of_codes_is_recognised(code: str) -> None:
    assert re.search(MANGLED, code)


@pytest.mark.parametrize(
    "code", ["1E50", "1E50.0", "MAR2", "C44.1", "254837009", "5.0", "8500/3", "T-28000", "2-1"]
)
def test_codes_that_only_look_mangled_are_left_alone(code: str) -> None:
    assert not re.search(MANGLED, code)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("abAB01. -_\u200b", max_size=6).map(lambda text: f"a{text}1"), max_size=12))
def test_spellings_of_a_code_are_folded_by_their_definition(codes: list[str]) -> None:
    """The same code without case, blanks, hyphens and what cannot be seen; a dot counts unless it is optional."""
    bare = ["".join(c for c in code.lower() if c in "ab01.") for code in codes]
    expected = [b.replace(".", "") if b.replace(".", "") in bare else b for b in bare]
    assert list(canonical_codes(pd.Series(codes, dtype="str"))) == expected


@fault("code_spelled_one_way")
def _(cohort: Cohort) -> list[str]:
    everything = cohort.rows("1E51.1")
    cohort.put(everything[:1], code="1e51.1")
    return list(cohort.diagnoses["study"][everything])


@fault("code_of_one_scheme")
def _(cohort: Cohort) -> list[str]:
    everything = cohort.rows("1E52.2")
    cohort.put(everything[3:5], scheme="99LOCAL")
    return list(cohort.diagnoses["study"][everything])


@fault("code_of_one_meaning")
def _(cohort: Cohort) -> list[str]:
    everything = cohort.rows("1E52.2")
    cohort.put(everything[3:5], meaning="Something else")
    return list(cohort.diagnoses["study"][everything])


@fault("meaning_of_one_code")
def _(cohort: Cohort) -> list[str]:
    everything = cohort.rows("1E52.2")
    cohort.put(everything[4:], code="XM42")
    return list(cohort.diagnoses["study"][everything])


@fault("code_valid_in_scheme", "a check digit")
def _(cohort: Cohort) -> list[str]:
    # 44054006, with two digits swapped.
    return cohort.put(cohort.rows("1E53.3"), code="44045006", scheme="SNOMED-CT")


@fault("code_valid_in_scheme", "a form")
def _(cohort: Cohort) -> list[str]:
    return cohort.put(cohort.rows("1E53.3"), code="LA0.0", scheme="ICD-10-GM")


@fault("meaning_given")
def _(cohort: Cohort) -> list[str]:
    return cohort.put([4, 40], meaning=None)


@fault("study_of_one_diagnosis")
def _(cohort: Cohort) -> list[str]:
    row = cohort.rows("1E50.0")[0]
    return cohort.repeat([row], code="1E51.1", meaning="Invented disease no. 1")


@fault("row_given_once")
def _(cohort: Cohort) -> list[str]:
    return cohort.repeat([12, 13, 14], basis="histology", diagnosed_on=None)


@fault("basis_known")
def _(cohort: Cohort) -> list[str]:
    return cohort.put([3, 6], basis="gut feeling")


@fault("diagnosis_date_plausible")
def _(cohort: Cohort) -> list[str]:
    return [*cohort.put([3], diagnosed_on="1899-12-30"), *cohort.put([8], diagnosed_on="2026-11-24")]


@fault("diagnosis_close_to_study")
def _(cohort: Cohort) -> list[str]:
    studies = studies_of(cohort.batch.taken()).set_index("study")["study_date"]
    seen = pd.Timestamp(studies[cohort.diagnoses["study"][5]])
    return cohort.put([5], diagnosed_on=(seen - pd.DateOffset(years=2, days=2)).date().isoformat())


@fault("successor_in_table", "missing")
def _(cohort: Cohort) -> list[str]:
    return cohort.put([10], superseded_by="1E99")


@fault("successor_in_table", "itself")
def _(cohort: Cohort) -> list[str]:
    return cohort.put([10], superseded_by=cohort.diagnoses["code"][10])


@fault("disease_of_two_patients")
def _(cohort: Cohort) -> list[str]:
    return cohort.put([11], code="RARE1", meaning="Seen once", scheme=None)


@fault("disease_not_default")
def _(cohort: Cohort) -> list[str]:
    change = [row for code in set(cohort.diagnoses["code"]) for row in cohort.rows(code)[3:]]
    cohort.put(change, code="1E50.0", meaning="Invented disease no. 0", scheme="ICD-11")
    return list(cohort.diagnoses["study"][cohort.rows("1E50.0")])


@fault("picture_of_one_diagnosis")
def _(cohort: Cohort) -> list[str]:
    one, other = cohort.rows("1E50.0"), cohort.rows("1E53.3")
    images = cohort.batch.instances
    source = images.index[images["study"] == cohort.diagnoses["study"][one[0]]][0]
    target = images.index[images["study"] == cohort.diagnoses["study"][other[0]]][0]
    images.loc[target, "pixels"] = images["pixels"][source]
    return list(cohort.diagnoses["study"][[*one, *other]])


def tie(cohort: Cohort, **values: object) -> list[str]:
    """Give all images of one disease one value, and make it rare elsewhere."""
    studies = list(cohort.diagnoses["study"][cohort.rows("1E54.4")])
    images = cohort.batch.instances
    images.loc[images["study"].isin(studies), list(values)] = list(values.values())
    return studies


@fault("disease_not_tied_to_scanner")
def _(cohort: Cohort) -> list[str]:
    return tie(cohort, manufacturer="Cyan", model="C")


@fault("disease_not_tied_to_modality")
def _(cohort: Cohort) -> list[str]:
    return tie(cohort, modality="MG")


@fault("disease_not_tied_to_image_size")
def _(cohort: Cohort) -> list[str]:
    return tie(cohort, rows=299, columns=299)


@fault("disease_not_tied_to_batch")
def _(cohort: Cohort) -> list[str]:
    return tie(cohort, batch="b0003")


@fault("prevalence_like_cohort")
def _(cohort: Cohort) -> list[str]:
    cohort.before = {f"1E{50 + n}.{n}": 20 for n in range(5)} | {"1E55.5": 900}
    return list(cohort.diagnoses["study"])


def test_a_clean_table_passes_every_check() -> None:
    report = Cohort().validate()
    assert [result.name for result in report.results] == [check.name for check in diagnosis_checks()]
    assert not report.failures
    assert all(result.batch == "all" and not result.failing for result in report.results)
    # Nothing is superseded in it, and of its scheme no form is known.
    assert {r.name for r in report.results if r.checked == 0} == {
        "successor_in_table",
        "code_valid_in_scheme",
    }


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_fails_its_own_check_and_no_other(name: str) -> None:
    check, plant = FAULTS[name]
    cohort = Cohort()
    expected = plant(cohort)

    report = cohort.validate()

    assert [failure.name for failure in report.failures] == [check]
    result = report[check]
    severity = next(c.severity for c in diagnosis_checks() if c.name == check)
    assert result.severity == severity
    assert report.passed_blocking == (severity == "warning")
    assert set(result.failing) <= set(expected)
    assert len(result.failing) == min(20, len(set(expected)))
    assert set(result.failing_batches) - {""} == cohort.batches(list(result.failing))
    assert not result.observed.startswith("nothing to check")


def test_every_check_has_a_planted_fault() -> None:
    assert {check for check, _ in FAULTS.values()} == {check.name for check in diagnosis_checks()}


def test_an_empty_table_says_that_there_was_nothing_to_check() -> None:
    cohort = Cohort()
    cohort.diagnoses = cohort.diagnoses[:0]
    report = cohort.validate()
    assert [failure.name for failure in report.failures] == ["table_has_rows"]
    assert all(r.checked == 0 and r.observed.startswith("nothing") for r in report.results[1:])


def test_a_corrected_diagnosis_passes() -> None:
    """A chain of corrections: the first is superseded by the second, the second by the third."""
    cohort = Cohort()
    row = cohort.rows("1E50.0")[0]
    cohort.repeat([row], code="1E51.1", meaning="Invented disease no. 1", superseded_by="1E52.2")
    cohort.repeat([row], code="1E52.2", meaning="Invented disease no. 2", superseded_by=None)
    cohort.put([row], superseded_by="1e51.1")
    report = cohort.validate()
    assert not report.failures
    assert report["successor_in_table"].checked == 2


def test_codes_that_only_look_alike_are_different_diseases() -> None:
    cohort = Cohort()
    for code, meaning, rows in (("1.23", "One", slice(0, 4)), ("12.3", "Another", slice(4, 8))):
        at = cohort.rows("1E53.3")[rows] if meaning == "One" else cohort.rows("1E54.4")[rows]
        cohort.put(at, code=code, meaning=meaning)
    assert not cohort.validate().failures


def test_a_tie_with_what_most_others_share_is_no_shortcut() -> None:
    """Chance would hardly do this, but who guesses the disease from a modality of most patients is mostly wrong."""
    cohort = Cohort()
    images = cohort.batch.instances
    number = pd.factorize(images["patient"])[0]
    images["modality"] = np.where(number % 9 < 5, "DX", "MR")
    patients = len(set(tie(cohort, modality="DX")))
    report = cohort.validate()
    assert 0.6**patients < 0.01 / 6
    assert report["disease_not_tied_to_modality"].passed


def test_a_study_with_two_diagnoses_is_no_example_of_either() -> None:
    cohort = Cohort()
    cohort.put([11, 12], code="RARE1", meaning="Seen twice")
    assert not cohort.validate().failures
    cohort.repeat([12], code="1E51.1", meaning="Invented disease no. 1")
    failed = {failure.name for failure in cohort.validate().failures}
    assert failed == {"study_of_one_diagnosis", "disease_of_two_patients"}


def test_a_disease_with_few_patients_is_not_called_tied() -> None:
    """Two patients on the commonest of four scanners happen every day."""
    cohort = Cohort()
    images = cohort.batch.instances
    commonest = images.drop_duplicates("study").groupby(["manufacturer", "model"]).size().idxmax()
    on_it = images[(images["manufacturer"] == commonest[0]) & (images["model"] == commonest[1])]
    rows = np.flatnonzero(cohort.diagnoses["study"].isin(on_it["study"]))[:2]
    cohort.put([int(row) for row in rows], code="RARE2", meaning="Seen twice")
    report = cohort.validate()
    assert report["disease_not_tied_to_scanner"].passed


def test_the_observation_names_the_disease_and_what_it_is_tied_to() -> None:
    cohort = Cohort()
    tie(cohort, manufacturer="Cyan", model="C")
    result = cohort.validate()["disease_not_tied_to_scanner"]
    assert "1E54.4" in result.observed
    assert "Cyan × C" in result.observed
    assert result.checked == 6
    assert result.failed == 1


def test_optional_columns_may_be_missing() -> None:
    cohort = Cohort()
    taken = cohort.batch.taken()
    table = cohort.diagnoses[["study", "code", "meaning"]]
    report = validate_diagnoses(Home(None), table, studies_of(taken), taken, docs=False)  # type: ignore[arg-type]
    assert not report.failures
    assert report["patient_matches_images"].checked == 0
