"""An adjudicated label is a reference standard: where there is one it counts, and the model cannot have moved it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meta_dx.review.desk import Desk
from meta_dx.review.teaching import AFTER_REVEAL
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]
NEW = {
    "diagnosis": "Q9",
    "new_scheme": "99T",
    "new_meaning": "another",
    "reason": "other",
    "text": "not that",
}


@pytest.fixture
def double(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk(readers=2, name="double")


def differ(desk: Desk, browser: Browsers) -> str:
    """Let two readers, who both say Disease 1 when they read blind, decide differently beside the answer."""
    anna, bert = (browser("reader", name, at=desk) for name in ("anna", "bert"))
    study = sorted(anna.cases())[0]
    for person, said in ((anna, {"verdict": "accept"}), (bert, {"verdict": "override", **NEW})):
        person.read(study, "D1")
        assert person.post(f"/cases/{study}/decide", **said).status_code == 303
    assert desk.cases.get(study).state == "disputed"
    return study


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        ({"verdict": "own", "diagnosis": "D1"}, 1),
        ({"verdict": "cannot_tell", "reason": "image_quality"}, 0),
        ({"verdict": "bad_image", "reason": "image_quality"}, 0),
    ],
)
def test_only_an_adjudication_that_names_a_disease_counts(
    double: Desk, browser: Browsers, said: dict[str, str], counted: int
) -> None:
    study = differ(double, browser)
    carl = browser("adjudicator", "carl", at=double)
    carl.get(f"/cases/{study}")
    assert carl.post(f"/cases/{study}/adjudicate", **said).status_code == 303
    found = double.dashboard()
    assert (found.accuracy.right, found.accuracy.of) == (0, counted)
    assert (found.readers_accuracy.right, found.readers_accuracy.of) == (2 * counted, 2 * counted)


def test_an_adjudicator_who_has_seen_the_answer_settles_the_case_and_makes_no_reference(
    double: Desk, browser: Browsers
) -> None:
    dora = browser("adjudicator", "dora", at=double)
    study = sorted(dora.cases())[0]
    dora.read(study, "D1")
    before = dora.shown(study)
    assert differ(double, browser) == study
    stale = dora.post(f"/cases/{study}/decide", answer=before, verdict="accept")
    assert (stale.status_code, "settle it, without the model" in stale.text) == (409, True)
    assert dora.post(f"/cases/{study}/adjudicate", verdict="own", diagnosis="D0").status_code == 303
    (settled,) = [one for one in double.cases.opinions(study) if one.kind == "adjudication"]
    assert (settled.run, settled.bundle, settled.support_version) == (1, "b" * 64, 1)
    assert double.dashboard().accuracy.of == 0
    disease = settled.content.diagnosis
    (case,) = double.lesson(disease, [study], "adjudication").cases
    assert case.basis == f"adjudication ({AFTER_REVEAL})"


def test_an_adjudication_without_the_model_makes_a_reference_also_for_a_disease_that_nobody_named_blind(
    double: Desk, browser: Browsers
) -> None:
    study = differ(double, browser)
    carl = browser("adjudicator", "carl", at=double)
    carl.post(f"/cases/{study}/adjudicate", verdict="own", diagnosis="D0")
    (settled,) = [one for one in double.cases.opinions(study) if one.kind == "adjudication"]
    assert settled.run is None
    assert (double.dashboard().accuracy.right, double.dashboard().accuracy.of) == (1, 1)
    assert double.lesson(settled.content.diagnosis, [study], "adjudication").cases[0].basis == "adjudication"


def test_a_case_that_was_done_before_its_dispute_makes_no_reference(double: Desk, browser: Browsers) -> None:
    anna, bert = (browser("reader", name, at=double) for name in ("anna", "bert"))
    carl = browser("adjudicator", "carl", at=double)
    study = sorted(anna.cases())[0]
    for person in (anna, bert):
        person.read(study, "D1")
        person.post(f"/cases/{study}/decide", verdict="accept")
    assert carl.get(f"/cases/{study}/report.json").status_code == 200
    anna.post(f"/cases/{study}/decide", verdict="override", **NEW)
    assert double.cases.get(study).state == "disputed"
    assert "the model is not measured against it" in " ".join(carl.get(f"/cases/{study}").text.split())
    carl.post(f"/cases/{study}/adjudicate", verdict="own", diagnosis="D1")
    assert double.cases.opinions(study)[-1].run == 1
    assert double.dashboard().accuracy.of == 0
