"""Signing in through an OpenID provider: who gets in, who does not, and what is written down."""

from __future__ import annotations

import re
import time

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.review.desk import Desk
from meta_dx.review.openid_attempts import MINUTES, Attempts
from tests.review.openid.conftest import last


def test_who_has_an_account_gets_in_and_it_is_written_down(desk: Desk, guest) -> None:
    person = guest()
    answer = person.sign_in("/worklist?view=mine")
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0;url=/worklist?view=mine">' in answer.text
    assert last(desk) == ("anna", "sign_in", "openid")
    assert person.inside
    cookies = answer.headers.get_list("set-cookie")
    assert any("meta_dx_session=" in one and "samesite=strict" in one.lower() for one in cookies)
    assert any("meta_dx_openid=" in one and "Max-Age=0" in one for one in cookies)


def test_what_is_asked_for_is_a_code_with_pkce_state_and_nonce(guest) -> None:
    person = guest(prompt="login")
    person.sign_in()
    (asked,), (sent,) = person.provider.asked, person.provider.tokens
    assert (asked["response_type"], asked["code_challenge_method"], asked["prompt"]) == (
        "code",
        "S256",
        "login",
    )
    assert asked["scope"].split()[0] == "openid"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"], sent["code_verifier"]}) == 4
    assert len(sent["code_verifier"]) >= 43
    first = asked["state"]
    person.sign_in()
    assert person.provider.asked[1]["state"] != first


def test_a_session_by_openid_is_like_any_other(desk: Desk, guest) -> None:
    person = guest()
    person.sign_in()
    page = person.client.get("/worklist").text
    csrf = re.search(r'name="csrf-token" content="([^"]+)"', page)
    assert csrf
    assert person.client.post("/sign-out", data={"csrf": "wrong"}).status_code == 403
    assert person.client.post("/sign-out", data={"csrf": csrf[1]}).headers["location"] == "/sign-in?left=1"
    assert not person.inside
    left = re.sub(r"\s+", " ", person.client.get("/sign-in?left=1").text)
    assert "Whoever came with the hospital is still signed in there" in left
    assert f'<a href="{person.provider.issuer}/leave">' in left
    assert last(desk)[1] == "sign_out"


def test_the_button_is_there_only_where_it_is_configured(desk: Desk, guest, browser) -> None:
    assert "openid" not in browser("reader", "other", signed_in=False).get("/sign-in").text
    shown = guest().client.get("/sign-in", params={"next": "/lead"}).text
    assert 'href="/sign-in/openid?next=/lead"' in shown
    assert "Sign in with the hospital" in shown


def test_an_unknown_subject_is_refused_in_clear_words(desk: Desk, guest) -> None:
    person = guest()
    person.provider.claims = {"sub": "u-2", "preferred_username": "anna"}  # a name opens nothing
    answer = person.sign_in()
    assert answer.status_code == 403
    assert "You are known as &#39;u-2&#39;, but no account here belongs to you" in answer.text
    assert not person.inside
    assert last(desk) == ("-", "sign_in_failed", "openid_no_account")
    assert "u-2" not in str(desk.trail.lines()[0].details)


def test_a_closed_account_stays_closed(desk: Desk, guest) -> None:
    person = guest()
    desk.accounts.change("anna", enabled=False, by="test")
    assert person.sign_in().status_code == 403
    assert not person.inside


def test_an_open_session_ends_when_the_account_is_closed(desk: Desk, guest) -> None:
    person = guest()
    person.sign_in()
    desk.accounts.change("anna", enabled=False, by="test")
    assert not person.inside


def test_an_account_of_the_provider_has_no_password_to_guess(desk: Desk, guest) -> None:
    guest()
    for password in ("", "None", "a long enough one"):
        with pytest.raises(MetaDxError):
            desk.accounts.sign_in("anna", password)
    with pytest.raises(MetaDxError, match="no password here"):
        desk.accounts.set_password("anna", by="admin")


def test_who_has_not_begun_here_writes_nothing_into_the_trail(desk: Desk, guest) -> None:
    person = guest()
    before = len(desk.trail.lines())
    stranger = person.browser()
    for cookie in ("", "made-up", "0-made-up-0", f"{int(time.monotonic())}-x-{'0' * 64}", "ä"):
        headers = {"cookie": f"meta_dx_openid={cookie}.".encode()} if cookie else {}
        assert stranger.get("/sign-in/openid/back?state=x", headers=headers).status_code == 403
    assert len(desk.trail.lines()) == before


def test_one_attempt_fails_once_in_the_trail(desk: Desk, guest) -> None:
    person = guest()
    person.leave()
    cookie = person.client.cookies["meta_dx_openid"]
    before = len(desk.trail.lines())
    for _ in range(3):
        headers = {"cookie": f"meta_dx_openid={cookie}"}
        assert person.browser().get("/sign-in/openid/back?state=x", headers=headers).status_code == 403
    assert len(desk.trail.lines()) == before + 1


def test_an_attempt_ends_though_the_browser_keeps_its_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts()
    begun = attempts.begin()
    assert attempts.known(begun.secret) == begun
    assert Attempts().known(begun.secret) is None
    later = time.monotonic() + 60 * MINUTES + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert attempts.known(begun.secret) is None
