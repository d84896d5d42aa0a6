"""What moved a number: on request, after the reveal, written down, and only where the options say so."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from meta_dx.errors import MetaDxError
from meta_dx.inference.saliency import SaliencyMap
from meta_dx.records.opinions import Shown
from meta_dx.review.desk import Desk
from meta_dx.review.insight import CaseSaliency
from meta_dx.review.options import ReviewOptions
from meta_dx.review.routes import saliency as saliency_routes
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]


class FakeInsight:
    """Draws a map whose left half lowers and whose right half raises."""

    def __init__(self, *spatial: int) -> None:
        self.spatial, self.asked = spatial or (8, 8), 0

    def saliency(self, study: str, shown: Shown, code: str, which: int) -> CaseSaliency:
        self.asked += 1
        if which:
            raise MetaDxError("unknown_picture", "The case has 1 picture(s) that the model looks at.")
        fall = np.full(self.spatial, 0.25)
        fall[..., self.spatial[-1] // 2 :] = -0.125
        return CaseSaliency(SaliencyMap(np.full((1, *self.spatial), 90, np.uint8), fall, 0.8), 1)


@pytest.fixture
def insight(desk: Desk) -> FakeInsight:
    desk.options = ReviewOptions(saliency=True)
    desk.insight = FakeInsight()
    return desk.insight


def paths(study: str, disease: str = "D0") -> list[str]:
    return [f"/cases/{study}/saliency{end}?disease={disease}" for end in ("", ".png")]


def test_a_map_is_out_of_reach_before_the_first_read(browser: Browsers, insight: FakeInsight) -> None:
    person = browser()
    study = person.cases()[0]
    assert [person.get(path).status_code for path in paths(study)] == [404, 404]
    person.get(f"/cases/{study}")
    before = [person.get(path) for path in (*paths(study), *paths(study, "none"), *paths("1.2.3"))]
    assert {answer.status_code for answer in before} == {404}
    assert len({answer.content for answer in before}) == 1, "no answer tells another disease from this one"
    assert insight.asked == 0
    person.read(study)
    assert [person.get(path).status_code for path in paths(study)] == [200, 200]


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_a_map_is_out_of_reach_where_answers_are(browser: Browsers, insight: FakeInsight, mode: str) -> None:
    person, lead = browser(), browser("lead")
    study = person.cases()[0]
    person.read(study)
    lead.post("/lead/model", mode=mode)
    assert [person.get(path).status_code for path in paths(study)] == [404, 404]
    assert insight.asked == 0


def test_it_is_off_unless_the_options_say_so(desk: Desk, browser: Browsers) -> None:
    assert not ReviewOptions().saliency
    desk.insight = FakeInsight()
    person = browser()
    study = person.cases()[0]
    person.read(study)
    assert "What moved the number" not in person.get(f"/cases/{study}").text
    assert [person.get(path).status_code for path in paths(study)] == [404, 404]


def test_it_says_that_it_is_unreliable_and_is_written_down(
    desk: Desk, browser: Browsers, insight: FakeInsight
) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    assert "What moved the number" in person.get(f"/cases/{study}").text
    assert insight.asked == 0, "nothing is made that nobody asked for"
    text = person.get(paths(study)[0]).text
    assert "Unreliable: it shows what moved the number, not where the disease is." in text
    assert "80 % falls, by 25.0 points" in text
    assert "rises, by 12.5 points" in text
    line = desk.trail.lines(study)[0]
    assert (line.action, line.support_version, line.details) == (
        "view_saliency",
        1,
        {"code": "D0", "image": 0},
    )


def test_what_cannot_be_made_is_told_in_its_place(browser: Browsers, insight: FakeInsight) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    answer = person.get(paths(study)[0] + "&image=3")
    assert answer.status_code == 200  # HTMX shows nothing else
    assert "The case has 1 picture(s)" in answer.text


def test_the_picture_is_orange_where_hiding_lowers_and_blue_where_it_raises(
    browser: Browsers, insight: FakeInsight
) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    drawn = np.asarray(Image.open(io.BytesIO(person.get(paths(study)[1]).content))).astype(int)
    left, right = drawn[128, 40], drawn[128, 220]
    assert left[0] - left[2] > 100
    assert right[2] - right[0] > 30


def test_of_a_volume_the_slice_is_chosen_and_the_middle_one_comes_first(
    desk: Desk, browser: Browsers, insight: FakeInsight
) -> None:
    desk.insight = FakeInsight(6, 8, 8)
    person = browser()
    study = person.cases()[0]
    person.read(study)
    fragment, picture = paths(study)
    assert 'name="slice" min="0" max="5" value="3"' in person.get(fragment).text
    assert "slice=1" in person.get(fragment + "&slice=1").text
    assert [person.get(f"{picture}&slice={n}").status_code for n in (0, 5, 6)] == [200, 200, 404]


def test_a_picture_asked_for_by_itself_is_written_down_once_a_session_and_map(
    desk: Desk, browser: Browsers, insight: FakeInsight
) -> None:
    def looks() -> list[tuple[str, object]]:
        lines = desk.trail.lines(study)
        return [(line.account, line.details["code"]) for line in lines if line.action == "view_saliency"]

    person, other = browser(), browser("reader", "other")
    study = person.cases()[0]
    for one in (person, other):
        one.read(study)
    fragment, picture = paths(study)
    for path in (picture, fragment, picture, picture + "&slice=1"):
        person.get(path)
    assert looks() == [("reader", "D0")]
    person.get(paths(study, "D1")[1])
    other.get(picture)
    assert looks() == [("other", "D0"), ("reader", "D1"), ("reader", "D0")]
    person.sign_in()
    person.get(picture)
    assert len(looks()) == 4


def test_a_map_of_a_disease_that_the_page_does_not_offer_is_not_made(
    desk: Desk, browser: Browsers, insight: FakeInsight, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = browser()
    study = person.cases()[0]
    person.read(study)
    real = saliency_routes.bars
    monkeypatch.setattr(saliency_routes, "bars", lambda *given: real(*given)[:1])
    assert [person.get(path).status_code for path in paths(study, "D1")] == [404, 404]
    assert insight.asked == 0


def test_while_another_map_is_made_the_page_says_so(
    desk: Desk, browser: Browsers, insight: FakeInsight, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> CaseSaliency:
        raise MetaDxError("map_in_making", "Another map is being made: try again in a few seconds.")

    person = browser()
    study = person.cases()[0]
    person.read(study)
    monkeypatch.setattr(insight, "saliency", busy)
    answers = [person.get(path) for path in paths(study)]
    assert [answer.status_code for answer in answers] == [429, 429]
    assert all("try again in a few seconds" in answer.text for answer in answers)
    assert "view_saliency" not in [line.action for line in desk.trail.lines(study)]
