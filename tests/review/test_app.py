"""The review pages as a browser sees them: who gets in, what is shown when, and what is kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import update

from meta_dx.records.cases import NewCase
from meta_dx.records.opinions import Decision, Diagnosis
from meta_dx.records.predictions import PredictedStudy, latest_predictions, save_prediction_run
from meta_dx.records.schema import CaseRow
from meta_dx.review.desk import Desk
from tests.review.conftest import PASSWORD, SECRET, Browser

Browsers = Callable[..., Browser]


def test_a_wrong_password_shows_the_form_again_and_opens_nothing(browser: Browsers) -> None:
    person = browser(signed_in=False)
    answer = person.sign_in("wrong password")
    assert (answer.status_code, "is wrong" in answer.text) == (403, True)
    assert person.get("/worklist").status_code == 303


def test_a_sign_in_form_of_another_browser_does_not_count(browser: Browsers) -> None:
    person = browser(signed_in=False)
    person.client.get("/sign-in")
    answer = person.client.post("/sign-in", data={"form": "forged", "name": "reader", "password": PASSWORD})
    assert "out of date" in answer.text
    assert person.get("/worklist").status_code == 303


def test_the_session_cookie_is_out_of_reach_for_scripts_and_other_sites(browser: Browsers) -> None:
    cookie = browser(signed_in=False).sign_in().headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("/worklist?view=mine", "/worklist?view=mine"),
        ("/cases/2.25.7", "/cases/2.25.7"),
        ("//evil.example", "/worklist"),
        ("https://evil.example/", "/worklist"),
        ("/\\evil.example", "/worklist"),
        ("/worklist@evil.example", "/worklist"),
    ],
)
def test_signing_in_leads_back_to_our_own_pages_only(browser: Browsers, target: str, leads_to: str) -> None:
    person = browser(signed_in=False)
    form = re.search(r'name="form" value="([^"]+)"', person.get("/sign-in").text)
    assert form
    fields = {"form": form[1], "name": "reader", "password": PASSWORD, "next": target}
    assert person.client.post("/sign-in", data=fields).headers["location"] == leads_to


def test_a_page_knows_when_its_session_ends_and_can_prolong_it(browser: Browsers) -> None:
    person = browser()
    assert re.search(r'name="session-expires-in" content="1[78]\d\d"', person.get("/worklist").text)
    answer = person.post("/session")
    assert (answer.status_code, int(answer.headers["x-session-expires-in"]) > 1700) == (204, True)


def test_signing_out_ends_the_session(browser: Browsers) -> None:
    person = browser()
    person.post("/sign-out")
    assert person.get("/worklist").status_code == 303


def test_what_changes_something_needs_the_number_of_the_session(desk: Desk, browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.get(f"/cases/{study}")
    for number in ("", "forged"):
        answer = person.client.post(
            f"/cases/{study}/read", data={"csrf": number, "rank1": "D0", "confidence": "5"}
        )
        assert answer.status_code == 403
    other = person.client.post(
        f"/cases/{study}/read",
        data={"csrf": person.csrf, "rank1": "D0", "confidence": "5"},
        headers={"origin": "https://elsewhere.example"},
    )
    assert other.status_code == 403
    assert desk.cases.opinions(study) == []


def test_another_name_for_the_server_is_refused(browser: Browsers) -> None:
    assert browser().client.get("/worklist", headers={"host": "evil.example"}).status_code == 421


def test_every_answer_has_the_careful_headers(browser: Browsers) -> None:
    person = browser()
    for path in ("/worklist", "/nowhere", f"/cases/{person.cases()[0]}/images"):
        headers = person.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


def test_a_given_password_leads_to_the_form_for_a_new_one_and_nowhere_else(
    desk: Desk, browser: Browsers
) -> None:
    person = browser("reader", "new", signed_in=False)
    secret = desk.accounts.set_password("new", by="admin")
    assert person.sign_in(secret).headers["location"] == "/password"
    assert person.get("/worklist").headers["location"] == "/password"
    answer = person.post("/password", old=secret, new="a better password", again="a better password")
    assert answer.headers["location"] == "/worklist"
    assert person.get("/worklist").status_code == 200


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


def every_answer_before_reading(person: Browser) -> dict[str, bytes]:
    """Return what a reader can fetch before the first opinion, with what differs by chance taken out."""
    studies = person.cases()
    paths = ["/worklist", "/worklist?search=chest", "/worklist?modality=CR", "/worklist?view=done", "/next"]
    paths += [f"/cases/{study}{part}" for study in studies for part in ("", "/images")]
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


def test_uncertain_cases_are_queued_among_random_ones_and_nothing_tells_which(
    desk: Desk, browser: Browsers
) -> None:
    lead, reader = browser("lead"), browser()
    before = reader.cases()
    answer = desk.answer(before[-1])
    assert answer is not None
    doubtful = replace(answer.answer, entropy=0.69)
    (saved,) = latest_predictions(desk.records)
    rows = [doubtful if study.study == before[-1] else study for study in saved.studies]
    save_prediction_run(desk.records, saved.run, rows)
    assert lead.post("/lead/queue", count="2").status_code == 303
    page = reader.get("/worklist").text
    first = re.findall(r'band--urgent">urgent.*?/cases/([\d.]+)"', page, re.DOTALL)
    assert len(first) == 2
    assert before[-1] in first
    assert desk.trail.lines()[0].details == {"band": 0, "cases": 2}
    assert lead.post("/lead/queue", count="0").status_code == 400


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
    assert "anna was here" in page
    assert "Your adjudication" in page
    carl.post(f"/cases/{study}/adjudicate", verdict="own", diagnosis="D1")
    assert desk.cases.get(study).state == "done"
    assert "carl" in anna.get(f"/cases/{study}").text


def test_a_decision_is_fully_there_or_not_at_all(
    desk: Desk, browser: Browsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    from meta_dx.records import cases

    def fails(*_: object) -> None:
        raise RuntimeError("the process dies here")

    with monkeypatch.context() as patched:
        patched.setattr(cases, "_settle", fails)
        assert person.post(f"/cases/{study}/decide", verdict="accept").status_code == 500
    assert [o.kind for o in desk.cases.opinions(study)] == ["blind"]
    assert desk.cases.get(study).state == "open"
    assert desk.trail.verify().whole
    assert "decide" not in [line.action for line in desk.trail.lines(study)]


def test_the_administrator_makes_accounts_whose_password_is_told_once(browser: Browsers) -> None:
    admin = browser("administrator")
    page = admin.post("/accounts", name="newcomer", role="reader").text
    secret = re.search(r"<code>([^<]+)</code>", page)
    assert secret
    assert secret[1] not in admin.get("/accounts").text
    assert "newcomer" in admin.get("/accounts").text
    assert (
        "exists" in admin.post("/accounts", name="newcomer", role="reader").text
        or "already" in admin.post("/accounts", name="newcomer", role="reader").text
    )


def test_the_worklist_gives_htmx_only_its_table(browser: Browsers) -> None:
    part = browser().get("/worklist", headers={"hx-request": "true"}).text
    assert "<html" not in part
    assert "worklist-table" in part
