"""The whole way of a case in a real browser, on a home with a trained bundle: from the sign-in to a verified trail."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from highdicom.sr import srread

from meta_dx.cli.app import run as meta_dx
from meta_dx.records.opinions import REASONS
from meta_dx.review.desk import Desk
from meta_dx.steps import Project
from meta_dx.steps.cohort import assemble
from meta_dx.steps.review import open_desk
from tests.review.chromium import needs_chromium, opening
from tests.review.screens import (
    decide,
    look_at_answer,
    look_at_trail,
    make_live,
    next_case,
    open_case,
    open_done,
    preview,
    read_blind,
    saved,
    scroll,
)
from tests.review.serving import served
from tests.review.trained import project, ran  # noqa: F401 # fixtures

pytestmark = [*needs_chromium, pytest.mark.timeout(600)]
CODE, SCHEME, NAME = "T1", "99T", "Drifting phantosis"
LABEL = f"{NAME} ({CODE})"
WAY = {"view case", "read blind", "reveal", "decide", "teach", "export report"}


@pytest.fixture
def desk(project: Project) -> Desk:  # noqa: F811
    """The review of the home, as `meta-dx review serve` opens it."""
    desk = open_desk(project)
    desk.catch_up()
    return desk


@pytest.fixture
def cases(project: Project) -> list[str]:  # noqa: F811
    """Three cases to read and to teach, the first with several images; none that stays hidden when it is taught."""
    data = assemble(project)
    rows = data.studies[data.studies["study"].isin(set(data.to_predict().study) - set(data.hidden))]
    found = rows.sort_values(["instances", "study"], ascending=False).head(3)
    assert found["instances"].iloc[0] > 1
    return list(found["study"])


@pytest.fixture
def people(desk: Desk) -> Iterator[Any]:
    """Browsers of a reader and of a lead."""
    with served(desk) as address, opening(address) as sign_in:
        anna, lena = sign_in("anna"), sign_in("lena")
        anna.expected.append("willReadFrequently")  # advice on speed for the library that draws without a GPU
        yield anna, lena


def test_the_whole_way_from_the_sign_in_to_a_verified_trail(
    desk: Desk, people: Any, cases: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, lena = people
    one, two, three = cases

    open_case(anna, one)
    scroll(anna)
    read_blind(anna, CODE, scheme=SCHEME, name=NAME)
    assert NAME not in look_at_answer(anna)
    decide(anna, "override", LABEL, "not_offered")
    open_case(anna, two)
    read_blind(anna, CODE, scheme=SCHEME, name=NAME)
    decide(anna, "override", LABEL, "not_offered")
    open_case(anna, three)
    read_blind(anna, desk.diseases()[-1].code)
    known = look_at_answer(anna)[1]
    decide(anna, "override", known, "wrong_evidence")

    told = preview(lena, [one, two], LABEL, "blind read")
    assert f"What 2 more cases of {LABEL} would change" in told
    assert re.search(r"answers rest on\s+0 → 2\s+Leave-one-out .*\s+– → \d+ %\s", told), told
    first = make_live(lena)
    told = preview(lena, [three], known, "pathology")
    assert re.search(r"Leave-one-out .*\s+\d+ % → \d+ %\s", told), told
    assert "pathology (label first given after the model was shown)" in told
    second = make_live(lena)
    assert second == first + 1

    next_case(anna)
    read_blind(anna, LABEL)
    assert NAME in look_at_answer(anna), "it is offered now"
    assert f"support set {second}." in anna.inner_text("[aria-labelledby=answer-title]")
    decide(anna, "accept")

    open_done(anna, one)
    groups = srread(saved(anna, "Structured report", tmp_path)).content.get_image_measurement_groups()
    stated = [found.value.meaning for found in groups[0].get_qualitative_evaluations()]
    assert stated == ["Rejected, another diagnosis given", NAME, REASONS["not_offered"]]
    fhir = json.loads(saved(anna, "FHIR", tmp_path).read_text())
    assert [code["text"] for code in fhir["conclusionCode"]] == [NAME]

    lena.click("nav >> text=Lead")
    assert "4 decided of 4 read" in lena.inner_text(".cards")
    served_by = lena.locator("section:has-text('Who answered') tbody tr").all_inner_texts()
    assert {tuple(row.split("\t")[1::3]) for row in served_by} == {(str(first - 1), "3"), (str(second), "1")}
    with saved(lena, "All decisions as a table", tmp_path).open() as file:
        rows = [row for row in csv.DictReader(file) if row["case"] == one]
    assert [(row["kind"], row["verdict"], row["code"], row["meaning"], row["reason"]) for row in rows] == [
        ("blind", "", CODE, NAME, ""),
        ("decision", "override", CODE, NAME, "not_offered"),
    ]

    assert WAY <= look_at_trail(lena, one)
    assert meta_dx(["review", "verify-audit", "--home", str(desk.home.root)]) == 0
    assert capsys.readouterr().out.startswith("whole: ")
