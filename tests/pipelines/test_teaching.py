"""Teaching a confirmed case on a home that the pipeline has made: live at once, without training."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.predictions import batch_predictions
from assets.project import MetaDx
from meta_dx.cohort.catalog import Catalog
from meta_dx.dicom.identity import Surrogates
from meta_dx.errors import MetaDxError
from meta_dx.records.accounts import Account
from meta_dx.records.opinions import Diagnosis
from meta_dx.records.predictions import latest_predictions, prediction_of
from meta_dx.records.support import SupportSets
from meta_dx.records.vault import Vault
from meta_dx.review.desk import Desk
from meta_dx.review.teaching import ConfirmedCase, Lesson
from meta_dx.steps import Project, cohort_file_of, open_project, predictions
from meta_dx.steps.cohort import assemble
from meta_dx.steps.predictions import OFF, predict_batch, unshifted
from meta_dx.steps.review import open_desk
from meta_dx.steps.teaching import ProjectTeacher
from tests.pipelines.conftest import Ran


@pytest.fixture
def project(ran: Ran, tmp_path: Path) -> Project:
    shutil.copytree(ran.home, tmp_path / "home")
    return open_project(ran.cohort, tmp_path / "home")


def undiagnosed(project: Project) -> list[str]:
    data = assemble(project)
    return [study for study in data.to_predict().study.tolist() if study not in data.hidden]


def teach(desk: Desk, teacher: ProjectTeacher, lesson: Lesson) -> int:
    desk._teacher = teacher
    return desk.teach(lead_of(desk), lesson)


def lead_of(desk: Desk) -> Account:
    return desk.accounts.add("dr.a", "lead", password="correct horse battery", must_change=False)[0]  # noqa: S106


def test_the_cases_of_the_review_are_the_studies_that_were_predicted(project: Project) -> None:
    desk = open_desk(project)
    predicted = {study.study for run in latest_predictions(desk.records) for study in run.studies}
    with desk.records.reading() as session:
        from sqlalchemy import select

        from meta_dx.records.schema import CaseRow

        assert set(session.scalars(select(CaseRow.study))) == predicted


def test_answering_anew_from_kept_embeddings_is_what_the_pipeline_answers(project: Project) -> None:
    desk = open_desk(project)
    for batch in Catalog(project.home).batches():  # tests of this folder may have changed the support set
        predict_batch(project, batch)
    before = {s.study: s for run in latest_predictions(desk.records) for s in run.studies}
    teacher = ProjectTeacher(project)
    version = SupportSets(desk.records).current()
    assert version is not None
    teacher._answer_anew(teacher._kept.get(), version)
    after = {s.study: s for run in latest_predictions(desk.records) for s in run.studies}
    assert after.keys() == before.keys()
    for study, answer in after.items():
        assert answer.probabilities == pytest.approx(before[study].probabilities, abs=1e-6)
        assert [case.study for case in answer.nearest] == [case.study for case in before[study].nearest]


def test_a_new_disease_is_offered_at_once_and_the_old_answer_stays_readable(project: Project) -> None:
    desk, teacher = open_desk(project), ProjectTeacher(project)
    teacher.warm()
    first, second, *rest = undiagnosed(project)
    old = prediction_of(desk.records, rest[0])
    assert old is not None
    assert "NEW" not in old.studies[0].probabilities
    lesson = Lesson(
        Diagnosis("NEW", "99T", "A new disease"),
        (ConfirmedCase(first, "pathology"), ConfirmedCase(second, "pathology")),
    )
    preview = teacher.preview(lesson, rest)
    assert (preview.cases_before, preview.cases_after) == (0, 2)
    assert preview.used == 2
    assert preview.accuracy_before is None
    assert preview.accuracy_after is not None
    assert prediction_of(desk.records, rest[0]) == old, "a preview changes nothing"
    version = teach(desk, teacher, lesson)
    new = prediction_of(desk.records, rest[0])
    assert new is not None
    assert new.run.support_version == version > old.run.support_version
    live = SupportSets(desk.records).current()
    assert live is not None
    with closing(Vault.open(project.home)) as vault:
        shift = Surrogates(vault.key).shift_days
    by_whom = {(c.confirmed_by, unshifted(c.confirmed_on, shift(c.patient))) for c in live.cases_of("NEW")}
    assert by_whom == {("dr.a", datetime.now(UTC).date().isoformat())}
    assert "NEW" in new.studies[0].probabilities
    changed = {c.study for c in preview.changes}
    tops = {
        study: max(p.studies[0].probabilities.items(), key=lambda pair: pair[1])[0]
        for study in rest
        if (p := prediction_of(desk.records, study))
    }
    assert {
        study
        for study in changed
        if tops[study] != next(c.after for c in preview.changes if c.study == study)
    } == set()
    assert "NEW" in {disease.code for disease in desk.diseases()}


def test_what_a_lesson_has_left_unanswered_is_answered_at_the_next_start(project: Project) -> None:
    desk, teacher = open_desk(project), ProjectTeacher(project)
    first, rest = undiagnosed(project)[0], undiagnosed(project)[1]
    lesson = Lesson(Diagnosis("NEW", "99T", "A new disease"), (ConfirmedCase(first, "pathology"),))
    version = SupportSets(desk.records).add(
        teacher.cases(lesson, "dr.a"), "dr.a", "a lesson; then the process died"
    )
    teacher.warm()
    made = prediction_of(desk.records, rest)
    assert made is not None
    assert made.run.support_version == version.version
    teacher.warm()
    assert prediction_of(desk.records, rest) == made, "what is answered stays"


@pytest.mark.parametrize("slower", ["a lesson", "a nightly run"])
def test_who_is_overtaken_by_a_lesson_leaves_its_answers_in_force(
    project: Project, monkeypatch: pytest.MonkeyPatch, slower: str
) -> None:
    desk, teacher = open_desk(project), ProjectTeacher(project)
    faster = ProjectTeacher(project, teacher._kept)  # of another process: it does not know our lock
    sets, names, asked = SupportSets(desk.records), undiagnosed(project), []

    def add(study: str) -> int:
        lesson = Lesson(Diagnosis("NEW", "99T", "A new disease"), (ConfirmedCase(study, "pathology"),))
        return sets.add(teacher.cases(lesson, "dr.a"), "dr.a", "a lesson").version

    def overtaken(*given: object) -> object:
        asked.append(1)
        answers = real(*given)
        if len(asked) == 1:
            add(names[1])
            faster.answer()
        return answers

    # Each is overtaken between reading the version and stamping a run of it.
    owner, step = (teacher, "_answers") if slower == "a lesson" else (predictions, "serving_of")
    real = getattr(owner, step)
    add(names[0])
    monkeypatch.setattr(owner, step, overtaken)
    if slower == "a lesson":
        teacher.answer()
    else:
        for batch in Catalog(project.home).batches():
            predict_batch(project, batch)
    newest = sets.current()
    assert newest is not None
    assert {run.run.support_version for run in latest_predictions(desk.records)} == {newest.version}


def test_a_batch_whose_cases_are_all_confirmed_leaves_no_answer_in_force(project: Project) -> None:
    desk, teacher = open_desk(project), ProjectTeacher(project)
    waiting = {
        batch: assemble(project).to_predict(batch).study.tolist() for batch in Catalog(project.home).batches()
    }
    batch, studies = min(waiting.items(), key=lambda pair: len(pair[1]))
    assert studies
    lesson = Lesson(
        Diagnosis("NEW", "99T", "A new disease"), tuple(ConfirmedCase(s, "pathology") for s in studies)
    )
    version = teach(desk, teacher, lesson)
    taught = latest_predictions(desk.records, batch)
    assert [(saved.run.support_version, saved.studies) for saved in taught] == [(version, ())]
    predict_batch(project, batch)
    assert latest_predictions(desk.records, batch) == taught, "a nightly run answers the same"


def test_two_lessons_of_one_server_answer_one_after_the_other(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = ProjectTeacher(project)
    teacher.warm()
    inside, most = [], []

    def answer_anew(*_: object) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()

    monkeypatch.setattr(teacher, "_answer_anew", answer_anew)
    threads = [threading.Thread(target=teacher.answer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_a_model_that_is_off_predicts_nothing_and_makes_up_for_it_when_it_is_on(project: Project) -> None:
    desk, teacher = open_desk(project), ProjectTeacher(project)
    lead, desk._teacher = lead_of(desk), teacher
    before = latest_predictions(desk.records)
    desk.switch(lead, "off")
    first, rest = undiagnosed(project)[0], undiagnosed(project)[1]
    lesson = Lesson(Diagnosis("NEW", "99T", "A new disease"), (ConfirmedCase(first, "pathology"),))
    version = desk.teach(lead, lesson)
    assert [predict_batch(project, batch) for batch in Catalog(project.home).batches()] == [None, None]
    assert latest_predictions(desk.records) == before
    desk.switch(lead, "shadow")
    desk.catch_up()
    assert desk.answer(rest) is None, "nobody sees it"
    made = prediction_of(desk.records, rest)
    assert made is not None
    assert made.run.support_version == version


def test_the_asset_is_skipped_while_the_model_is_off_and_says_why(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_desk(project)
    batch = Catalog(project.home).batches()[0]

    def run() -> tuple[int, list[str]]:
        with dg.instance_for_test() as instance:
            instance.add_dynamic_partitions("ingest_batch", [batch])
            done = dg.materialize(
                [batch_predictions],
                partition_key=batch,
                instance=instance,
                resources={
                    "meta_dx": MetaDx(
                        cohort=str(cohort_file_of(project.home.root)), home=str(project.home.root)
                    )
                },
            )
            assert done.success
            said = [entry.user_message for entry in instance.all_logs(done.run_id)]
            return len(done.asset_materializations_for_node("batch_predictions")), said

    made, said = run()
    assert made == 1
    assert OFF not in said
    desk.switch(lead_of(desk), "off")
    made, said = run()
    assert made == 0
    assert OFF in said


def test_a_study_cannot_stand_for_two_diseases(project: Project) -> None:
    teacher = ProjectTeacher(project)
    version = SupportSets(open_desk(project).records).current()
    assert version is not None
    taken = version.cases[0].study
    lesson = Lesson(Diagnosis("NEW", "99T", "A new disease"), (ConfirmedCase(taken, "pathology"),))
    desk = open_desk(project)
    for act in (lambda: teacher.preview(lesson, []), lambda: teach(desk, teacher, lesson)):
        with pytest.raises(MetaDxError) as fault:
            act()
        assert fault.value.code == "study_in_two_diseases"


def test_a_case_of_a_patient_who_is_confirmed_already_is_named(project: Project) -> None:
    teacher = ProjectTeacher(project)
    version = SupportSets(open_desk(project).records).current()
    assert version is not None
    one = version.cases[0]
    lesson = Lesson(
        Diagnosis(one.code, one.scheme, one.meaning), (ConfirmedCase(undiagnosed(project)[0], "pathology"),)
    )
    assert teacher.preview(lesson, []).near_duplicates == ()
    same = Lesson(lesson.disease, (ConfirmedCase(one.study, "pathology"),))
    others = {case.study for case in version.cases if case.patient == one.patient} - {one.study}
    assert {pair[1] for pair in teacher.preview(same, []).near_duplicates} == others


def test_a_wrong_label_makes_itself_suspect(project: Project) -> None:
    teacher = ProjectTeacher(project)
    sets = SupportSets(open_desk(project).records)
    version = sets.current()
    assert version is not None
    serving = teacher._serving(teacher._kept.get(), version.cases)
    right, wrong = serving.codes[:2]
    moved = next(case for case in serving.cases if case.code == wrong)
    sets.correct([moved.study], author="x", reason="a mistake", code=right)
    suspects = teacher.preview(
        Lesson(Diagnosis(right, "", right), (ConfirmedCase(moved.study, "pathology"),)), []
    )
    assert suspects.cases_after >= suspects.cases_before
    assert all(0.5 <= one.probability <= 1 for one in suspects.suspects)
    assert replace(suspects, suspects=()) is not None
