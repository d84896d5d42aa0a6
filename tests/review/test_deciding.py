"""A reader's way to a decision: what is offered, what is refused, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis
from meta_dx.records.predictions import latest_predictions, save_prediction_run
from meta_dx.review.desk import Desk
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]


def test_the_whole_way_from_the_worklist_to_a_decision(desk: Desk, browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    blind = person.get(f"/cases/{study}").text
    assert "Your own opinion" in blind
    assert "What the model says" not in blind
    assert person.read(study, "Disease 1 (D1)", "60").status_code == 303
    shown = person.get(f"/cases/{study}").text
    assert "80 %" in shown
    assert "(40 to 90)" in shown
    assert "histology" in shown
    answer = person.post(
        f"/cases/{study}/decide", verdict="override", diagnosis="disease 1", reason="finding_missed"
    )
    assert answer.status_code == 303
    said = [o for o in desk.cases.opinions(study) if o.kind == "decision"]
    assert [o.content for o in said] == [
        Decision("override", Diagnosis("D1", "99T", "Disease 1"), "finding_missed")
    ]
    assert (said[0].bundle, said[0].support_version) == ("b" * 64, 1)
    assert person.cases("done") == [study]


def test_accepting_keeps_the_models_first_disease(desk: Desk, browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    person.post(f"/cases/{study}/decide", verdict="accept", diagnosis="D1")
    (said,) = [o for o in desk.cases.opinions(study) if o.kind == "decision"]
    assert said.content == Decision("accept", Diagnosis("D0", "99T", "Disease 0"))


def test_of_equally_probable_diseases_every_page_and_report_calls_the_same_one_first(
    make_desk: Callable[..., Desk], browser: Browsers
) -> None:
    level = make_desk(0.5, name="level")
    person = browser(at=level)
    study = person.cases()[0]
    person.read(study)
    page = person.get(f"/cases/{study}").text
    assert page.index("Disease 0</") < page.index("Disease 1</")
    assert "It is Disease 0 (D0)" in page
    person.post(f"/cases/{study}/decide", verdict="accept")
    told = person.get(f"/cases/{study}/report.json").json()
    assert told["conclusionCode"][0]["coding"][0]["code"] == "D0"
    first = told["extension"][0]["extension"][0]["valueCodeableConcept"]
    assert first["coding"][0]["code"] == "D0"
    assert [case.top for case in level._read_cases(level.cases.everything())] == ["D0"]


def test_nothing_is_chosen_beforehand(browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    assert "checked" not in person.get(f"/cases/{study}").text


def test_a_disease_that_is_not_in_the_list_can_be_named(desk: Desk, browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    fields = {"verdict": "override", "diagnosis": "Q99", "reason": "not_offered"}
    assert person.post(f"/cases/{study}/decide", **fields).status_code == 400
    person.post(f"/cases/{study}/decide", **fields, new_scheme="I10", new_meaning="New disease")
    assert desk.cases.opinions(study)[-1].content == Decision(
        "override", Diagnosis("Q99", "I10", "New disease"), "not_offered"
    )


def test_a_blind_read_may_name_a_disease_that_is_not_in_the_list(desk: Desk, browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    assert 'name="new_meaning"' in person.get(f"/cases/{study}").text
    new = {"confidence": "80", "new_scheme": "I10", "new_meaning": "New disease"}
    two = person.post(f"/cases/{study}/read", rank1="Q99", rank2="Q98", **new)
    assert (two.status_code, "name only one that is new" in two.text) == (400, True)
    assert person.post(f"/cases/{study}/read", rank1="Q99", rank2="D1", **new).status_code == 303
    said = desk.cases.opinions(study)[-1].content
    assert isinstance(said, BlindOpinion)
    assert said.ranked[0] == Diagnosis("Q99", "I10", "New disease")
    assert said.ranked[1].code == "D1"


def test_an_incomplete_form_says_why_and_keeps_what_was_typed(browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.get(f"/cases/{study}")
    answer = person.post(f"/cases/{study}/read", rank1="nonsense", confidence="30", text="a shadow")
    assert answer.status_code == 400
    assert "not among the diseases" in answer.text
    assert "a shadow" in answer.text
    assert "nonsense" in answer.text


def test_a_draft_comes_back(browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.get(f"/cases/{study}")
    assert person.post(f"/cases/{study}/draft", text="half a thought", rank1="Disease").status_code == 204
    page = person.get(f"/cases/{study}").text
    assert "half a thought" in page
    assert study in person.cases("mine")


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_a_model_that_is_switched_off_shows_nothing(desk: Desk, browser: Browsers, mode: str) -> None:
    browser("lead").post("/lead/model", mode=mode)
    person = browser()
    study = person.cases()[0]
    person.read(study)
    page = person.get(f"/cases/{study}").text
    assert "not shown at present" in page
    assert "80 %" not in page
    assert person.post(f"/cases/{study}/decide", verdict="accept").status_code == 400
    person.post(f"/cases/{study}/decide", verdict="own", diagnosis="D1")
    assert desk.cases.opinions(study)[-1].content == Decision("own", Diagnosis("D1", "99T", "Disease 1"))
    assert desk.cases.opinions(study)[-1].bundle is None


def test_a_decision_is_fully_there_or_not_at_all(
    desk: Desk, browser: Browsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    from meta_dx.records import case_rows

    def fails(*_: object) -> None:
        raise RuntimeError("the process dies here")

    with monkeypatch.context() as patched:
        patched.setattr(case_rows, "settle", fails)
        assert person.post(f"/cases/{study}/decide", verdict="accept").status_code == 500
    assert [o.kind for o in desk.cases.opinions(study)] == ["blind"]
    assert desk.cases.get(study).state == "open"
    assert desk.trail.verify().whole
    assert "decide" not in [line.action for line in desk.trail.lines(study)]


def test_a_new_disease_of_the_blind_read_is_in_the_list_of_its_reader_and_its_spelling_can_be_mended(
    desk: Desk, browser: Browsers
) -> None:
    person = browser()
    first, other = person.cases()[:2]
    person.get(f"/cases/{first}")
    new = {"new_scheme": "99T", "new_meaning": "Drfiting"}
    person.post(f"/cases/{first}/read", rank1="T1", confidence="50", **new)
    assert "Drfiting (T1)" in person.get(f"/cases/{first}").text
    assert "Drfiting" not in person.get(f"/cases/{other}").text
    form = {"verdict": "override", "reason": "not_offered"}
    person.post(f"/cases/{first}/decide", diagnosis="drfiting (t1)", **form)
    person.post(f"/cases/{first}/decide", diagnosis="T1", **form, **{**new, "new_meaning": "Drifting"})
    contents = [one.content for one in desk.cases.opinions(first)]
    said = [content.diagnosis for content in contents if isinstance(content, Decision)]
    assert said == [Diagnosis("T1", "99T", "Drfiting"), Diagnosis("T1", "99T", "Drifting")]
    page = person.get(f"/cases/{first}").text
    assert "Drifting (T1)" in page
    assert "Drfiting (T1)" not in page
    assert person.post(f"/cases/{first}/decide", diagnosis="Drifting (T1)", **form).status_code == 303


def test_diseases_that_are_too_improbable_to_be_listed_are_counted(desk: Desk, browser: Browsers) -> None:
    (run,) = latest_predictions(desk.records)
    eight = {f"D{n}": (8 - n) / 36 for n in range(8)}
    answers = [replace(one, probabilities=eight, interval=None) for one in run.studies]
    save_prediction_run(desk.records, run.run, answers)
    person = browser()
    study = person.cases()[0]
    person.read(study, "D1")
    assert "2 others together: 8 %" in person.get(f"/cases/{study}").text
