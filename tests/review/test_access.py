"""Who gets into the review pages, and what every request and answer has to carry."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from meta_dx.records.schema import SignInRow
from meta_dx.review.desk import Desk
from tests.review.conftest import Browser
from tests.review.serving import PASSWORD

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


def test_every_answer_to_a_request_that_keeps_the_session_open_says_for_how_long(browser: Browsers) -> None:
    person = browser()
    study = person.cases()[0]
    person.get(f"/cases/{study}")
    paths = ["/worklist", "/next", "/nowhere", "/accounts", "/password"]
    paths += [f"/cases/{study}{part}" for part in ("", "/images", "/lengths", "/report.json")]
    frame = person.get(f"/cases/{study}/images").json()["studies"][0]["series"][0]["frames"][0]["url"]
    answers = [person.get(path) for path in [*paths, frame]]
    answers += [
        person.post(f"/cases/{study}/{name}", rank1="D0", confidence="70") for name in ("draft", "read")
    ]
    answers.append(person.client.post(f"/cases/{study}/draft", data={"csrf": "forged"}))
    assert {answer.status_code for answer in answers} >= {200, 303, 403, 404, 409}
    for answer in answers:
        told = answer.headers.get("x-session-expires-in")
        # Whole seconds of the policy, whatever was asked for; nobody was asked for at an address that there is not.
        assert told == (None if answer.url.path == "/nowhere" else "1800"), answer.url
    left = person.post("/sign-out")
    strangers = [left, person.get("/sign-in"), person.get("/worklist"), person.get("/session")]
    assert all("x-session-expires-in" not in answer.headers for answer in strangers)


def test_asking_how_long_a_session_lasts_does_not_keep_it_open(desk: Desk, browser: Browsers) -> None:
    person = browser()
    person.client.headers["accept"] = "*/*"

    def unused_for(minutes: float) -> None:
        seen = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="microseconds")
        with desk.records.transaction() as session:
            session.execute(update(SignInRow).values(seen_at=seen))

    for minutes, least, most in ((0, 1790, 1800), (20, 590, 600), (29, 50, 60)):
        unused_for(minutes)
        for _ in range(2):
            answer = person.get("/session")
            assert answer.status_code == 204
            assert least <= int(answer.headers["x-session-expires-in"]) <= most
    unused_for(30.1)
    assert person.get("/session").status_code == 401
    unused_for(29)
    assert person.post("/session").headers["x-session-expires-in"] == "1800"
    assert int(person.get("/session").headers["x-session-expires-in"]) > 1790
    with desk.records.transaction() as session:
        end = (datetime.now(UTC) + timedelta(minutes=5)).isoformat(timespec="microseconds")
        session.execute(update(SignInRow).values(ends_at=end))
    assert int(person.get("/session").headers["x-session-expires-in"]) <= 300
    desk.accounts.change("reader", enabled=False, by="test")
    assert person.get("/session").status_code == 401


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
    study = person.cases()[0]
    for path in ("/worklist", "/nowhere", f"/cases/{study}", f"/cases/{study}/images"):
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
