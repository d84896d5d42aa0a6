"""Which cases are read first: uncertain ones more often, and so that being first, or not, tells little."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random

import pytest

from meta_dx.review.desk import Desk, drawn
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]


def chances(cases: int, count: int) -> tuple[float, float]:
    """Return how likely a case of the most uncertain quarter is drawn, and any other, computed draw by draw."""
    uncertain = -(-cases // 4)

    @cache
    def expected(more: int, others: int, left: int) -> float:
        if left == 0:
            return 0.0
        total, found = 3 * more + others, 0.0
        if more:
            found += 3 * more / total * (1 + expected(more - 1, others, left - 1))
        if others:
            found += others / total * expected(more, others - 1, left - 1)
        return found

    of_them = expected(uncertain, cases - uncertain, count)
    return of_them / uncertain, (count - of_them) / (cases - uncertain)


def test_being_drawn_or_not_changes_the_odds_by_a_factor_of_three_at_most() -> None:
    for cases in range(2, 41):
        for count in range(1, cases // 2 + 1):
            more, others = chances(cases, count)
            assert 0 < others < more < 1
            assert more / others <= 3 + 1e-9
            assert (1 - others) / (1 - more) <= 3 + 1e-9


@pytest.mark.parametrize(("cases", "count"), [(3, 1), (8, 2), (8, 4), (40, 10)])
def test_cases_are_drawn_with_these_chances(cases: int, count: int) -> None:
    waiting = [f"case {n:02}" for n in range(cases)]
    doubt = {study: float(n) for n, study in enumerate(waiting)}
    random, looks = Random(0), 3000
    times = Counter(study for _ in range(looks) for study in drawn(waiting, doubt, count, random))
    uncertain = set(waiting[cases - -(-cases // 4) :])
    for study in waiting:
        chance = chances(cases, count)[0 if study in uncertain else 1]
        assert abs(times[study] / looks - chance) < 4.5 * (chance * (1 - chance) / looks) ** 0.5


def test_at_most_half_are_drawn_and_none_twice() -> None:
    waiting = [f"case {n}" for n in range(9)]
    found = drawn(waiting, {}, 500, Random(0))
    assert (len(found), len(set(found))) == (4, 4)
    assert drawn([], {}, 2, Random(0)) == []


def urgent(person: Browser) -> set[str]:
    page = person.get("/worklist").text
    return set(re.findall(r'band--first">first.*?/cases/([\d.]+)"', page, re.DOTALL))


def test_cases_are_queued_and_others_only_once_these_have_been_opened(desk: Desk, browser: Browsers) -> None:
    lead, reader = browser("lead"), browser()
    assert lead.post("/lead/queue", count="2").status_code == 303
    first = urgent(reader)
    assert len(first) == 2
    assert desk.trail.lines()[0].details == {"band": 0, "cases": 2}
    one, other = sorted(first)
    lead.get(f"/cases/{one}")
    refused = lead.post("/lead/queue", count="2")
    assert (refused.status_code, "Nobody has opened 1 of the cases" in refused.text) == (409, True)
    assert urgent(reader) == first
    reader.get(f"/cases/{other}")
    assert lead.post("/lead/queue", count="2").status_code == 303
    assert len(urgent(browser("reader", "another")) - first) == 1  # half of the two that nobody has opened
    assert lead.post("/lead/queue", count="0").status_code == 400
