"""What the pages show, to whom and when: nothing of the model before the first read, no identity by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import update

from meta_dx.records.cases import NewCase
from meta_dx.records.predictions import PredictedStudy, latest_predictions, save_prediction_run
from meta_dx.records.schema import CaseRow
from meta_dx.review.desk import Desk
from tests.review.conftest import SECRET, Browser

Browsers = Callable[..., Browser]


def every_answer_before_reading(person: Browser) -> dict[str, bytes]:
    """Return what a reader can fetch before the first opinion, with what differs by chance taken out."""
    studies = person.cases()
    paths = ["/worklist", "/worklist?search=chest", "/worklist?modality=CR", "/worklist?view=done", "/next"]
    paths += [f"/cases/{study}{part}" for study in studies for part in ("", "/images", "/lengths")]
    found = {}
    for path in paths:
        answer = person.get(path)
        found[path] = (
            re.sub(rb'(csrf[^>]*?(?:content|value)=")[^"]+', rb"\1", answer.content)
            + repr(sorted((k, v) for k, v in answer.headers.items() if k != "set-cookie")).encode()
        )
        if path.endswith("/images"):
            for url in re.findall(r'"url":"([^"]+)"', answer.text):
                found[url] = person.get(url).content
    return found


def test_two_homes_that_differ_only_in_predictions_answer_alike_before_the_first_read(
    make_desk: Callable[..., Desk], copy_of: Callable[[Desk, str], Desk], browser: Browsers
) -> None:
    one = make_desk(0.9, name="one")
    two = copy_of(one, "two")
    (saved,) = latest_predictions(two.records)
    other = [
        replace(
            s,
            probabilities={"D0": 0.1, "D1": 0.9},
            interval=None,
            epistemic=None,
            aleatoric=None,
            evidence=None,
        )
        for s in saved.studies
    ]
    save_prediction_run(two.records, saved.run, other)
    first, second = browser(at=one), browser(at=two)
    left, right = every_answer_before_reading(first), every_answer_before_reading(second)
    assert left == right
    assert len(left) > 15
    study = first.cases("mine")[0]
    for person in (first, second):
        person.read(study)
    assert first.get(f"/cases/{study}").text != second.get(f"/cases/{study}").text


@pytest.mark.parametrize("mode", ["on", "shadow", "off"])
def test_two_homes_that_differ_only_in_predictions_show_a_lead_the_same_until_a_case_is_done(
    make_desk: Callable[..., Desk], copy_of: Callable[[Desk, str], Desk], browser: Browsers, mode: str
) -> None:
    one = make_desk(0.9, name="one")
    many = [f"9.{n}" for n in range(50)]  # enough for weeks and comparisons
    made = NewCase("", "", "b0001", "CT", None, None, None, None, 1, 1)
    one.cases.add(replace(made, study=study, patient=study) for study in many)
    with one.records.transaction() as session:
        early = update(CaseRow).where(CaseRow.study.in_(many[:25]))
        session.execute(early.values(added_at="2026-01-05T10:00:00.000000+00:00"))
    two = copy_of(one, "two")
    (saved,) = latest_predictions(one.records)
    for desk, p in ((one, 0.9), (two, 0.1)):
        doubts = {"epistemic": p / 10, "aleatoric": 0.5 - p / 10}
        rows = [PredictedStudy(study, {"D0": p, "D1": 1 - p}, 0.5, **doubts) for study in many]
        save_prediction_run(desk.records, saved.run, rows)
    pages, leads = [], [browser("lead", at=desk) for desk in (one, two)]
    for desk, lead in zip((one, two), leads, strict=True):
        browser("reader", at=desk).read(many[0])  # somebody else's blind read must not tell the lead either
        lead.post("/lead/model", mode=mode)
        pages.append(re.sub(r'(csrf[^>]*?(?:content|value)=")[^"]+', r"\1", lead.get("/lead").text))
    assert pages[0] == pages[1]
    for desk in (one, two):
        with desk.records.transaction() as session:
            session.execute(update(CaseRow).values(state="done"))
    assert len({re.sub("csrf[^>]*", "", lead.get("/lead").text) for lead in leads}) == 2


def test_the_evidence_is_out_of_reach_before_the_first_read(desk: Desk, browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.get(f"/cases/{study}")
    answer = desk.answer(study)
    assert answer is not None
    assert answer.answer.evidence
    path = f"/cases/{study}/evidence/{answer.answer.evidence[0].image}"
    assert person.get(path).status_code == 404
    person.read(study)
    picture = person.get(path)
    assert picture.content.startswith(b"\x89PNG")
    assert person.get(f"/cases/{study}/evidence/2.25.1").status_code == 404


def test_identity_is_shown_to_those_who_may_and_written_down(desk: Desk, browser: Browsers) -> None:
    lead = browser("lead")
    study = lead.cases()[0]
    found = lead.post(f"/cases/{study}/identity").text
    assert re.search(r"<dd>P\d</dd>", found)
    assert "1.2.3." in found
    assert desk.trail.lines(study)[0].action == "show_identity"
    assert SECRET not in found


def test_no_page_shows_an_identity_by_itself(browser: Browsers) -> None:
    lead = browser("lead")
    study = lead.cases()[0]
    lead.read(study)
    lead.post(f"/cases/{study}/decide", verdict="accept")
    for path in ("/worklist", f"/cases/{study}", f"/cases/{study}/images", "/lead", "/audit"):
        text = lead.get(path).text
        assert SECRET not in text
        assert "1.2.3." not in text
        assert not re.search(r"\bP\d\b", text)


def test_frames_come_at_full_depth(desk: Desk, browser: Browsers, studies) -> None:  # type: ignore[no-untyped-def]
    person = browser()
    study = person.cases()[0]
    person.get(f"/cases/{study}")
    manifest = person.get(f"/cases/{study}/images").json()
    frame = manifest["studies"][0]["series"][0]["frames"][0]
    answer = person.get(frame["url"])
    pixels = np.frombuffer(answer.content, answer.headers["x-frame-dtype"]).reshape(24, 24)
    assert pixels.max() > 255
    name = frame["url"].split("/")[-2]
    from meta_dx.cohort.objects import ObjectStore
    from meta_dx.dicom.pixels import physical_pixels

    np.testing.assert_array_equal(pixels, physical_pixels(ObjectStore(desk.home).read(name)))


def test_two_readers_are_blind_to_each_other_until_both_have_decided(
    make_desk: Callable[..., Desk], browser: Browsers
) -> None:
    desk = make_desk(readers=2, name="double")
    anna, bert, carl = (
        browser("reader", "anna", at=desk),
        browser("reader", "bert", at=desk),
        browser("adjudicator", "carl", at=desk),
    )
    study = anna.cases()[0]
    anna.read(study)
    anna.post(f"/cases/{study}/decide", verdict="accept", text="anna was here")
    assert study in bert.cases()
    assert "anna" not in bert.get(f"/cases/{study}").text
    bert.read(study)
    assert "anna" not in bert.get(f"/cases/{study}").text
    bert.post(f"/cases/{study}/decide", verdict="override", diagnosis="D1", reason="wrong_evidence")
    assert study in carl.cases("disputed")
    page = carl.get(f"/cases/{study}").text
    assert "<b>anna</b>, own opinion" in page
    assert "anna was here" not in page  # she said it beside the model's answer
    assert "Your adjudication" in page
    carl.post(f"/cases/{study}/adjudicate", verdict="own", diagnosis="D1")
    assert "anna was here" in carl.get(f"/cases/{study}").text
    assert desk.cases.get(study).state == "done"
    assert "carl" in anna.get(f"/cases/{study}").text


def test_the_worklist_gives_htmx_only_its_table(browser: Browsers) -> None:
    part = browser().get("/worklist", headers={"hx-request": "true"}).text
    assert "<html" not in part
    assert "worklist-table" in part
