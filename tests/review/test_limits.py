"""What is sent and is more than any page of ours sends is refused, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from meta_dx.review.desk import Desk
from tests.review.conftest import Browser

Browsers = Callable[..., Browser]
MIB = 1 << 20


def draft_of(desk: Desk, study: str) -> dict[str, str] | None:
    account = next(one for one in desk.accounts.all() if one.name == "reader")
    reading = desk.cases.reading(account, study)
    assert reading is not None
    return reading.draft


@pytest.fixture
def opened(browser: Browsers) -> tuple[Browser, str]:
    reader = browser()
    study = reader.cases()[0]
    reader.get(f"/cases/{study}")
    return reader, study


def test_a_draft_has_as_many_fields_as_a_form(desk: Desk, opened: tuple[Browser, str]) -> None:
    reader, study = opened
    answer = reader.post(f"/cases/{study}/draft", **{f"field{n}": "x" * 4000 for n in range(100)})
    assert answer.status_code == 400
    assert "Too many fields" in answer.text
    assert draft_of(desk, study) is None


def test_no_page_takes_a_file(desk: Desk, opened: tuple[Browser, str]) -> None:
    reader, study = opened
    files = {"text": ("a.txt", b"a")}
    for path in (f"/cases/{study}/draft", f"/cases/{study}/read", "/sign-out"):
        answer = reader.client.post(path, files=files, headers={"x-csrf-token": reader.csrf})
        assert answer.status_code == 400, path
        assert "Too many files" in answer.text
    assert draft_of(desk, study) is None


def test_a_draft_keeps_the_fields_of_our_forms_only(desk: Desk, opened: tuple[Browser, str]) -> None:
    reader, study = opened
    assert reader.post(f"/cases/{study}/draft", text="kept", rank2="D1", other="not").status_code == 204
    assert draft_of(desk, study) == {"for": "blind 1", "text": "kept", "rank2": "D1"}
    reader.post(f"/cases/{study}/read", text="wrong", other="not")
    assert draft_of(desk, study) == {"for": "blind 1", "text": "wrong"}


def in_pieces() -> Iterator[bytes]:
    yield b"form=1&name=a&password="
    for _ in range(3):
        yield b"x" * (MIB // 2)


@pytest.mark.parametrize("told", [True, False], ids=["of a told length", "in pieces"])
def test_a_body_that_is_too_large_is_refused_before_anybody_signs_in(browser: Browsers, told: bool) -> None:
    nobody = browser(signed_in=False)
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = nobody.client.post(
        "/sign-in", content=b"".join(in_pieces()) if told else in_pieces(), headers=kind
    )
    assert answer.status_code == 413
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
