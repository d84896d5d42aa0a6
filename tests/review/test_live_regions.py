"""What a page has from the beginning for those who hear it or go through it by keys."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from meta_dx.review.desk import Desk
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]


@pytest.mark.parametrize("role", ["reader", "adjudicator", "lead", "administrator", ""])
def test_every_page_has_an_empty_region_for_messages(browser: Browsers, role: str) -> None:
    person = browser(role or "reader", signed_in=bool(role))
    study = "" if role in ("", "administrator") else person.cases()[0]
    seen = 0
    for path in (
        "/sign-in",
        "/password",
        "/worklist",
        f"/cases/{study}",
        "/teach",
        "/lead",
        "/accounts",
        "/audit",
    ):
        page = person.get(path)
        if page.status_code != 303:
            seen += 1
            assert len(re.findall(r'<div class="toasts" role="status"[^>]*></div>', page.text)) == 1, path
    assert seen >= (4 if role else 1)


def skips_to(person: Browser, study: str) -> str:
    """Return which form the page of a case offers to skip to, having seen that it is there if and only if it is."""
    page = person.get(f"/cases/{study}").text
    forms = re.findall(r'<form class="panel" id="(\w+)"', page)
    assert re.findall(r'<a class="skip-link" href="#(\w+)">', page) == ["main", *forms]
    return forms[0] if forms else ""


def test_a_case_offers_to_skip_to_its_form_if_it_has_one(
    make_desk: Callable[..., Desk], browser: Browsers
) -> None:
    desk = make_desk(readers=2, name="double")
    anna, bert, carl, dora = (
        browser(role, name, at=desk)
        for role, name in zip(
            ["reader"] * 2 + ["adjudicator"] * 2, ("anna", "bert", "carl", "dora"), strict=True
        )
    )
    study = sorted(anna.cases())[0]
    late = browser("reader", "late", at=desk)
    assert skips_to(late, study) == "blind"
    assert skips_to(anna, study) == "blind"
    anna.read(study)
    assert skips_to(anna, study) == "decision"
    anna.post(f"/cases/{study}/decide", verdict="accept")
    assert skips_to(anna, study) == "decision"
    bert.read(study)
    bert.post(f"/cases/{study}/decide", verdict="override", diagnosis="D1", reason="wrong_evidence")
    dora.read(study)
    assert skips_to(late, study) == ""
    assert skips_to(carl, study) == "decision"
    assert "Skip to your adjudication" in carl.get(f"/cases/{study}").text
    carl.post(f"/cases/{study}/adjudicate", verdict="own", diagnosis="D1")
    assert skips_to(carl, study) == "decision"
    for person in (anna, bert, dora, late):
        skips_to(person, study)


def test_a_search_says_how_many_cases_it_finds_once(browser: Browsers) -> None:
    person = browser()
    whole = person.get("/worklist").text
    assert re.findall(
        r'<p class="visually-hidden" id="worklist-count" role="status">([^<]*?)\s*</p>', whole
    ) == ["4 cases"]
    assert "hx-swap-oob" not in whole
    part = person.get("/worklist?search=nothing+like+it", headers={"hx-request": "true"}).text
    said = re.findall(r'<p id="worklist-count" hx-swap-oob="innerHTML">([^<]*?)\s*</p>', part)
    assert said == ["No case that fits the search"]
