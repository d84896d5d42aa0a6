"""An adjudicated label is a reference standard: where there is one it counts, and the model cannot have moved it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meta_dx.review.desk import Desk
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]
NEW = {"diagnosis": "Q9", "new_scheme": "99T", "new_meaning": "another", "reason": "other", "text": "not that"}


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
