"""The page of the audit trail: lines are found, page by page, and nothing is left out between two pages."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import pytest

from meta_dx.records.audit import AuditLine
from meta_dx.review.desk import Desk
from meta_dx.review.routes import lead as routes
from tests.review.conftest import Browser


def seqs(page: str) -> list[int]:
    return [int(seq) for seq in re.findall(r"<tr><td>(\d+)</td>", page)]


def test_older_lines_follow_page_by_page_under_the_same_filters(
    desk: Desk, browser: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "LINES", 3)
    person = browser("administrator")
    for number in range(7):
        desk.trail.add(AuditLine("anna b", ("view_case", "reveal")[number % 2], f"2.25.{number}"))
    page = person.get("/audit?account=anna+b&action=view_case").text
    wanted = [line.seq for line in desk.trail.lines(account="anna b", action="view_case")]
    assert len(wanted) == 4
    assert seqs(page) == wanted[:3]
    assert "<option selected>anna b</option>" in page
    (older,) = re.findall(r'rel="next" href="([^"]+)"', page)
    page = person.get(html.unescape(older)).text
    assert seqs(page) == wanted[3:]
    assert 'rel="next"' not in page
    (newest,) = re.findall(r'href="([^"]+)">Newest<', page)
    assert seqs(person.get(html.unescape(newest)).text) == wanted[:3]
    assert "There are no such lines." in person.get("/audit?account=nobody").text
    assert person.get(f"/audit?before={(1 << 31) - 1}").status_code == 200
    assert person.get(f"/audit?before={1 << 31}").status_code == 422, "more than PostgreSQL's column holds"


def test_a_long_trail_is_checked_anew_only_when_somebody_asks(
    desk: Desk, browser: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    person = browser("administrator")
    verify, looked = desk.trail.verify, []
    monkeypatch.setattr(desk.trail, "verify", lambda: looked.append(1) or verify())
    for _ in range(2):
        assert "Whole: " in person.get("/audit").text
    assert len(looked) == 2, "a short one with every look"
    monkeypatch.setattr("meta_dx.review.desk._QUICK_SECONDS", 0.0)
    for _ in range(3):
        assert "Checked at " in person.get("/audit").text
    assert len(looked) == 3
    person.get("/audit?check=true")
    assert len(looked) == 4


@pytest.mark.parametrize(
    ("path", "action"), [("/lead", "view_lead"), ("/teach", "view_teach"), ("/audit", "view_audit")]
)
def test_pages_that_tell_of_many_cases_leave_a_line(
    desk: Desk, browser: Callable[..., Browser], path: str, action: str
) -> None:
    browser("lead").get(path)
    assert desk.trail.lines(account="lead")[0].action == action
