"""Teaching: a case becomes support only with evidence beside the model, and after a look at what that changes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis, Opinion
from meta_dx.records.support import SupportCase, SupportSets
from meta_dx.review import rendering
from meta_dx.review.desk import Desk
from meta_dx.review.teaching import AFTER_REVEAL, Change, Lesson, Preview, Suspect, confirmed
from meta_dx.review.wording import short
from tests.review.conftest import Browser

X, Y = Diagnosis("D0", "99T", "Disease 0"), Diagnosis("D1", "99T", "Disease 1")
Browsers = Callable[..., Browser]


class FakeTeacher:
    """Remembers what it was taught."""

    def __init__(self) -> None:
        self.taught: list[Lesson] = []
        self.answered = 0
        self.asked_about: Sequence[str] = ()

    def warm(self) -> None:
        self.answer()

    def preview(self, lesson: Lesson, reviewed: Sequence[str]) -> Preview:
        study, self.asked_about = lesson.cases[0].study, reviewed
        return Preview(
            3, 4, 1, 0.5, 0.75, (Suspect(study, "D1", 0.9),), ((study, study),), (Change(study, "D0", "D1"),)
        )

    def cases(self, lesson: Lesson, by: str) -> list[SupportCase]:
        self.taught.append(lesson)
        named = lesson.disease
        return [
            SupportCase(named.code, named.scheme, named.meaning, c.study, "p", by, basis=c.basis)
            for c in lesson.cases
        ]

    def answer(self) -> None:
        self.answered += 1


def said(kind: str, content: BlindOpinion | Decision, who: str = "anna", version: int = 1) -> Opinion:
    return Opinion("s", who, kind, version, content, None, None, None, "2026-01-01")  # type: ignore[arg-type]


SHOWN_AT = "2025-12-31"  # before everything that is said below
AGREES = [said("blind", BlindOpinion((X,), 80)), said("decision", Decision("accept", X))]
PERSUADED = [said("blind", BlindOpinion((Y,), 80)), said("decision", Decision("accept", X))]


def test_a_blind_read_that_agrees_is_evidence() -> None:
    assert confirmed("s", X, "blind read", AGREES, SHOWN_AT).basis == "blind read"


@pytest.mark.parametrize("opinions", [PERSUADED, [], [AGREES[0]], [AGREES[1]]])
def test_a_reader_whom_the_model_has_persuaded_is_none(opinions: list[Opinion]) -> None:
    with pytest.raises(MetaDxError) as fault:
        confirmed("s", X, "blind read", opinions, SHOWN_AT)
    assert fault.value.code == "no_evidence"


def test_a_decision_before_anybody_was_shown_an_answer_is_nobodys_but_the_readers_own() -> None:
    own = [PERSUADED[0], said("decision", Decision("own", X))]
    assert confirmed("s", X, "pathology", own, None).basis == "pathology", "as in shadow mode"
    assert confirmed("s", X, "pathology", own, "2026-01-02").basis == "pathology", "shown to them later"
    assert AFTER_REVEAL in confirmed("s", X, "pathology", own, SHOWN_AT).basis


def test_one_code_of_two_schemes_is_two_diseases() -> None:
    other = Diagnosis(X.code, "RADLEX", "Something else")
    with pytest.raises(MetaDxError):
        confirmed("s", other, "blind read", AGREES, SHOWN_AT)
    assert (
        confirmed("s", Diagnosis("d0", "", "As typed"), "blind read", AGREES, SHOWN_AT).basis == "blind read"
    )


def test_a_label_that_came_after_the_reveal_is_marked_also_with_pathology() -> None:
    assert confirmed("s", X, "pathology", AGREES, SHOWN_AT).basis == "pathology"
    assert "after the model was shown" in confirmed("s", X, "pathology", PERSUADED, SHOWN_AT).basis


def test_an_adjudication_is_evidence_for_what_it_said_only() -> None:
    settled = [*PERSUADED, said("adjudication", Decision("own", Y), "carl")]
    assert confirmed("s", Y, "adjudication", settled, SHOWN_AT).basis == "adjudication"
    with pytest.raises(MetaDxError):
        confirmed("s", X, "adjudication", settled, SHOWN_AT)


def test_a_changed_decision_counts_as_it_is_now() -> None:
    changed = [*AGREES, said("decision", Decision("override", Y, "wrong_evidence"), version=2)]
    with pytest.raises(MetaDxError):
        confirmed("s", X, "blind read", changed, SHOWN_AT)


def test_grounds_that_are_none_are_refused() -> None:
    with pytest.raises(MetaDxError) as fault:
        confirmed("s", X, "the model", AGREES, SHOWN_AT)
    assert fault.value.code == "bad_basis"


@pytest.fixture
def taught(desk: Desk) -> FakeTeacher:
    desk._teacher = FakeTeacher()
    return desk._teacher


def teach(person: Browser, **form: str):  # type: ignore[no-untyped-def]
    """Look at what a lesson would change, then teach it."""
    mark = re.search(r'name="previewed" value="(\w+)"', person.post("/teach", **form).text)
    assert mark
    return person.post("/teach", **form, action="teach", previewed=mark[1])


def decided(browser: Browsers, diagnosis: str = "D0") -> tuple[Browser, str]:
    reader = browser("reader")
    study = reader.cases()[0]
    reader.read(study, diagnosis)
    reader.post(f"/cases/{study}/decide", verdict="accept")
    return reader, study


def test_the_whole_way_from_a_decided_case_to_a_live_one(
    desk: Desk, browser: Browsers, taught: FakeTeacher
) -> None:
    _, study = decided(browser)
    teacher = browser("adjudicator")
    assert study in teacher.get("/teach").text
    form = {"disease": "D0", "basis": "blind read", "study": study}
    preview = teacher.post("/teach", **form).text
    for part in ("3 → 4", "50 %", "75 %", "90 %", "Disease 0 → Disease 1", "Make them live"):
        assert part in preview, part
    assert taught.taught == []
    told = teach(teacher, **form).text
    assert "Support set 2 is live: open cases are answered with it" in told
    (lesson,) = taught.taught
    assert (lesson.disease, lesson.cases[0].study) == (X, study)
    version = SupportSets(desk.records).current()
    assert version is not None
    assert (version.version, version.author) == (2, "adjudicator")
    assert study in {case.study for case in version.cases}
    line = desk.trail.lines(study)[0]
    assert (line.action, line.support_version, line.details) == (
        "teach",
        2,
        {"code": "D0", "basis": "blind read"},
    )
    assert taught.answered == 1


@pytest.mark.parametrize(("mode", "asked"), [("on", 1), ("shadow", 0), ("off", 0)])
def test_a_preview_names_changed_answers_only_where_answers_may_be_seen(
    desk: Desk, browser: Browsers, taught: FakeTeacher, mode: str, asked: int
) -> None:
    _, study = decided(browser)
    lead = browser("lead")
    lead.post("/lead/model", mode=mode)
    lead.post("/teach", disease="D0", basis="blind read", study=study)
    assert len(taught.asked_about) == asked


def test_with_the_model_off_a_lesson_is_live_and_cases_wait_until_it_is_on(
    desk: Desk, browser: Browsers, taught: FakeTeacher
) -> None:
    _, study = decided(browser)
    lead = browser("lead")
    lead.post("/lead/model", mode="off")
    told = teach(lead, disease="D0", basis="blind read", study=study).text
    assert "the model is off, and open cases wait" in told
    before = taught.answered
    lead.post("/lead/model", mode="on")
    assert taught.answered == before + 1


def test_a_lesson_whose_answers_were_not_made_is_in_the_trail_and_caught_up_with_later(
    desk: Desk, browser: Browsers, taught: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, study = decided(browser)

    def dies() -> None:
        raise KeyError

    with monkeypatch.context() as patched:
        patched.setattr(taught, "answer", dies)
        answer = teach(browser("lead"), disease="D0", basis="blind read", study=study)
    assert answer.status_code == 500
    assert versions(desk) == lessons(desk) == [2]
    desk.catch_up()
    assert taught.answered == 1


DIES = """
import os, sys
from pathlib import Path
from meta_dx.home import Home
from meta_dx.records.opinions import Diagnosis
from meta_dx.review.desk import Desk
from meta_dx.review.teaching import ConfirmedCase, Lesson
from tests.review.test_teaching import FakeTeacher

home, study, place = sys.argv[1:]
desk = Desk(Home.open(Path(home)), teacher=FakeTeacher())
keeper, name = {"before the lines": (desk.trail, "_append"), "before the anchor": (desk.trail, "_anchor"),
                "before the answers": (desk._teacher, "answer")}[place]
setattr(keeper, name, lambda *_: os._exit(9))
lead = next(account for account in desk.accounts.all() if account.name == "lead")
desk.teach(lead, Lesson(Diagnosis("D0", "99T", "Disease 0"), (ConfirmedCase(study, "pathology"),)))
"""


@pytest.mark.system
@pytest.mark.parametrize(
    ("place", "there"), [("before the lines", []), ("before the anchor", [2]), ("before the answers", [2])]
)
def test_a_process_that_dies_in_a_lesson_leaves_version_and_lines_or_neither(
    desk: Desk, browser: Browsers, monkeypatch: pytest.MonkeyPatch, place: str, there: list[int]
) -> None:
    monkeypatch.setattr(rendering, "built_files", lambda: {"js": [], "css": []})
    browser("lead")
    study = desk.cases.waiting()[0]
    done = subprocess.run([sys.executable, "-c", DIES, str(desk.home.root), study, place], check=False)
    assert done.returncode == 9
    assert versions(desk) == lessons(desk) == there
    assert desk.trail.verify().whole


def versions(desk: Desk) -> list[int]:
    """Versions of the support set that a lesson has made."""
    return [one.version for one in SupportSets(desk.records).versions() if one.author == "lead"]


def lessons(desk: Desk) -> list[int | None]:
    """Versions of the support set that the audit trail knows from lessons."""
    return [line.support_version for line in desk.trail.lines() if line.action == "teach"]


def test_a_case_whose_images_are_not_fit_for_reading_becomes_no_support(
    browser: Browsers, taught: FakeTeacher
) -> None:
    reader = browser()
    study = reader.cases()[0]
    reader.read(study)
    reader.post(f"/cases/{study}/decide", verdict="bad_image", reason="image_quality")
    answer = browser("lead").post("/teach", disease="D0", basis="pathology", study=study)
    assert (answer.status_code, "not fit for reading" in answer.text) == (400, True)


def test_a_lesson_says_what_readers_have_decided_otherwise_and_is_written_down(
    desk: Desk, browser: Browsers, taught: FakeTeacher
) -> None:
    _, study = decided(browser)
    page = browser("lead").post("/teach", disease="D1", basis="pathology", study=study).text
    assert "decided as Disease 0" in page
    line = desk.trail.lines(study)[0]
    assert (line.action, line.account, line.details) == ("preview_lesson", "lead", {"code": "D1"})


def test_a_new_disease_needs_a_name(browser: Browsers, taught: FakeTeacher) -> None:
    _, study = decided(browser)
    teacher = browser("lead")
    form = {"disease": "Q1", "basis": "pathology", "study": study}
    assert teacher.post("/teach", **form).status_code == 400
    assert teach(teacher, **form, new_meaning="A new disease", new_scheme="I10").status_code == 200
    assert taught.taught[0].disease == Diagnosis("Q1", "I10", "A new disease")


def test_a_disease_that_a_decision_has_named_is_called_and_offered_by_its_name(
    browser: Browsers, taught: FakeTeacher
) -> None:
    reader = browser()
    study = reader.cases()[0]
    reader.read(study)
    new = {"new_scheme": "99T", "new_meaning": "A new disease"}
    reader.post(f"/cases/{study}/decide", verdict="override", reason="not_offered", diagnosis="Q1", **new)
    teacher = browser("lead")
    page = teacher.get("/teach").text
    assert "<td>A new disease</td>" in page
    assert '<option value="A new disease (Q1)">' in page
    assert "A new disease" not in reader.get(f"/cases/{reader.cases()[0]}").text, (
        "others are asked without it"
    )
    teach(teacher, disease="A new disease (Q1)", basis="pathology", study=study)
    assert taught.taught[0].disease == Diagnosis("Q1", "99T", "A new disease")


def test_a_disease_whose_name_was_mended_is_offered_and_taught_by_the_mended_one(
    browser: Browsers, taught: FakeTeacher
) -> None:
    reader = browser()
    study = reader.cases()[0]
    reader.read(study)
    form = {"verdict": "override", "reason": "not_offered", "diagnosis": "Q1", "new_scheme": "99T"}
    for meaning in ("A nwe disease", "A new disease"):
        reader.post(f"/cases/{study}/decide", **form, new_meaning=meaning)
    teacher = browser("lead")
    assert "A nwe disease" not in teacher.get("/teach").text
    teach(teacher, disease="Q1", basis="pathology", study=study)
    assert taught.taught[0].disease == Diagnosis("Q1", "99T", "A new disease")


@pytest.mark.parametrize("changed", ["choice", "grounds", "disease", "support set", "nothing was shown"])
def test_nothing_is_taught_but_what_was_shown(
    desk: Desk, browser: Browsers, taught: FakeTeacher, changed: str
) -> None:
    reader, study = decided(browser)
    other = reader.cases()[0]
    reader.read(other, "D0")
    reader.post(f"/cases/{other}/decide", verdict="accept")
    lead = browser("lead")
    form = {"disease": "D0", "basis": "pathology", "study": study}
    (mark,) = re.findall(r'name="previewed" value="(\w+)"', lead.post("/teach", **form).text)
    if changed == "support set":
        teach(browser("adjudicator"), disease="D0", basis="pathology", study=other)
    form |= {
        "choice": {"study": other},
        "grounds": {"basis": "follow-up"},
        "disease": {"disease": "D1"},
    }.get(changed, {})
    before = len(taught.taught)
    mark = "" if changed == "nothing was shown" else mark
    answer = lead.post("/teach", **form, action="teach", previewed=mark)
    assert answer.status_code == 409
    assert "This is not what was shown" in answer.text
    assert len(taught.taught) == before
    (mark,) = re.findall(r'name="previewed" value="(\w+)"', answer.text)
    assert lead.post("/teach", **form, action="teach", previewed=mark).status_code == 200
    assert len(taught.taught) == before + 1


def test_what_others_teach_in_the_moment_of_the_click_is_shown_before_it_is_taught(
    desk: Desk, browser: Browsers, taught: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, study = decided(browser)
    lead = browser("lead")
    form = {"disease": "D0", "basis": "pathology", "study": study}
    (mark,) = re.findall(r'name="previewed" value="(\w+)"', lead.post("/teach", **form).text)
    cases = taught.cases

    def late(lesson: Lesson, by: str) -> list[SupportCase]:
        other = SupportCase("D1", "99T", "Disease 1", "other", "P")
        SupportSets(desk.records).add([other], "adjudicator", "at the same time")
        return cases(lesson, by)

    with monkeypatch.context() as changed:
        changed.setattr(taught, "cases", late)
        answer = lead.post("/teach", **form, action="teach", previewed=mark)
    assert answer.status_code == 409
    assert "This is not what was shown" in answer.text
    assert versions(desk) == lessons(desk) == []
    (mark,) = re.findall(r'name="previewed" value="(\w+)"', answer.text)
    assert lead.post("/teach", **form, action="teach", previewed=mark).status_code == 200
    assert lessons(desk) == versions(desk) != []


def test_what_others_teach_while_a_preview_is_made_is_shown_before_it_is_taught(
    browser: Browsers, taught: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, study = decided(browser)
    other = reader.cases()[0]
    reader.read(other, "D0")
    reader.post(f"/cases/{other}/decide", verdict="accept")
    lead, adjudicator, preview = browser("lead"), browser("adjudicator"), taught.preview

    def slowly(lesson: Lesson, reviewed: Sequence[str]) -> Preview:
        monkeypatch.setattr(taught, "preview", preview)
        teach(adjudicator, disease="D0", basis="pathology", study=other)
        return preview(lesson, reviewed)

    monkeypatch.setattr(taught, "preview", slowly)
    assert teach(lead, disease="D0", basis="pathology", study=study).status_code == 409
    assert [lesson.cases[0].study for lesson in taught.taught] == [other]


def test_a_search_keeps_what_is_chosen_and_typed_and_enter_teaches_nothing(
    browser: Browsers, taught: FakeTeacher
) -> None:
    reader, study = decided(browser)
    other = reader.cases()[0]
    reader.read(other, "D1")
    reader.post(f"/cases/{other}/decide", verdict="override", reason="not_offered", diagnosis="D1")
    lead = browser("lead")

    def listed(**more: str) -> list[str]:
        return re.findall(
            r'name="study" value="([\d.]+)"', lead.post("/teach", basis="follow-up", **more).text
        )

    assert set(listed(action="search")) == {study, other}
    assert listed(action="search", search="disease 1") == [other]
    assert listed(action="search", search=short(study)) == listed(action="enter", search=study) == [study]
    assert listed(action="search", search="nothing like it") == []
    assert listed(action="search", search="disease 1", study=study) == [study, other]
    found = lead.post(
        "/teach", basis="follow-up", disease="D0", action="enter", search="disease 1", study=study
    ).text
    assert f'value="{study}" aria-label="Case {short(study)}" checked' in found
    assert "<option selected>follow-up" in found
    assert 'name="disease" list="diseases" autocomplete="off" value="D0"' in found
    looked = {
        "search": "disease 1",
        "searched": "disease 1",
        "study": study,
        "disease": "D0",
        "basis": "pathology",
    }
    assert "Make them live" in lead.post("/teach", action="enter", **looked).text
    assert taught.taught == []


@pytest.mark.parametrize("basis", ["", "adjudication", "the model"])
def test_without_grounds_nothing_is_taught(browser: Browsers, taught: FakeTeacher, basis: str) -> None:
    _, study = decided(browser)
    answer = browser("lead").post("/teach", disease="D0", basis=basis, study=study, action="teach")
    assert answer.status_code == 400
    assert taught.taught == []


def test_a_case_that_nobody_has_decided_cannot_be_taught(browser: Browsers, taught: FakeTeacher) -> None:
    lead = browser("lead")
    answer = lead.post("/teach", disease="D0", basis="pathology", study=lead.cases()[0], action="teach")
    assert answer.status_code == 400
    assert "read and decided" in answer.text
    assert taught.taught == []


def test_before_there_is_a_model_the_page_says_so(browser: Browsers) -> None:
    _, study = decided(browser)
    answer = browser("lead").post("/teach", disease="D0", basis="pathology", study=study)
    assert "no model yet" in answer.text
