"""Signing in through an OpenID provider: who gets in, and every way of lying about it that we know."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey

from meta_dx.errors import MetaDxError
from meta_dx.review import app as application
from meta_dx.review import openid
from meta_dx.review.desk import Desk
from meta_dx.review.openid import OpenIdProvider
from meta_dx.review.openid_attempts import MINUTES, Attempts
from meta_dx.review.openid_options import SECRET_VARIABLE, OpenIdOptions, OpenIdRoles
from tests.review.conftest import PASSWORD
from tests.review.openid_provider import CLIENT, SECRET, Provider, providing, signed_with_public_key, unsigned

_KEY, _OTHER = (RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}) for kid in ("first", "first"))
GROUPS = OpenIdRoles(lead=("dx-lead",), reader=("dx-read", "dx-all"), administrator=("dx-admin",))


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    with providing(Provider(key=_KEY)) as made:
        yield made


class Guest:
    """A browser, and the pages that it sees."""

    def __init__(self, desk: Desk, provider: Provider, **options: object) -> None:
        openid = OpenIdOptions(provider.issuer, CLIENT, label="the hospital", **options)  # type: ignore[arg-type]
        desk.options = replace(desk.options, openid=openid)
        self.provider, self.app = provider, application.create_app(desk, {"testserver"})
        self.client = self.browser()

    def browser(self) -> TestClient:
        made = TestClient(self.app, follow_redirects=False, raise_server_exceptions=False)
        made.headers["accept"] = "text/html"
        return made

    def leave(self, target: str = ""):  # type: ignore[no-untyped-def]
        return self.client.get("/sign-in/openid", params={"next": target} if target else {})

    def way_back(self, target: str = "") -> str:
        """Go to the provider; return where it sends the browser."""
        location = self.leave(target).headers["location"]
        back = requests.get(location, allow_redirects=False, timeout=10).headers["Location"]
        assert back.startswith("http://testserver/sign-in/openid/back?")
        return back

    def sign_in(self, target: str = ""):  # type: ignore[no-untyped-def]
        return self.client.get(self.way_back(target))

    @property
    def inside(self) -> bool:
        return self.client.get("/worklist").status_code == 200


@pytest.fixture
def guest(desk: Desk, provider: Provider) -> Callable[..., Guest]:
    """A factory of guests; there is an account for the subject u-1."""

    def make(**options: object) -> Guest:
        desk.accounts.add("anna", "reader", subject=provider.named("u-1"))
        return Guest(desk, provider, **options)

    return make


def last(desk: Desk) -> tuple[str, str, object]:
    line = desk.trail.lines()[0]
    return line.account, line.action, line.details.get("why", line.details.get("how"))


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


# Who does not get in


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


# Attacks


def spoiled(**claims: object) -> Callable[[dict[str, object]], None]:
    return lambda given: given.update(claims)


NOW = time.time()
TOKENS = {
    "wrong nonce": spoiled(nonce="another"),
    "no nonce": lambda claims: claims.pop("nonce"),
    "another audience": spoiled(aud="another-client"),
    "another audience for us": spoiled(aud="another-client", azp=CLIENT),
    "several audiences for another": spoiled(aud=[CLIENT, "another"], azp="another"),
    "no audience": lambda claims: claims.pop("aud"),
    "expired": spoiled(exp=int(NOW) - 3600, iat=int(NOW) - 7200),
    "never ends": lambda claims: claims.pop("exp"),
    "another issuer": spoiled(iss="https://evil.example"),
    "no issuer": lambda claims: claims.pop("iss"),
    "no subject": lambda claims: claims.pop("sub"),
    "empty subject": spoiled(sub=""),
    "a list for a subject": spoiled(sub=["u-1"]),
    "not yet valid": spoiled(nbf=int(NOW) + 3600),
    "of another access token": spoiled(at_hash="AAAA"),
}


@pytest.mark.parametrize("spoil", TOKENS.values(), ids=TOKENS)
def test_a_token_that_is_not_for_this_sign_in_is_refused(desk: Desk, guest, spoil) -> None:
    person = guest()
    person.provider.spoil = spoil
    answer = person.sign_in()
    assert answer.status_code == 403
    assert "The sign-in was refused" in answer.text
    assert not person.inside
    assert last(desk) == ("-", "sign_in_failed", "openid_refused")


SIGNATURES = {
    "another key of the same name": lambda p: lambda claims: p.signed(claims, _OTHER),
    "an unknown key": lambda p: lambda claims: p.signed(claims, RSAKey.generate_key(2048, {"kid": "new"})),
    "alg none": lambda p: unsigned,
    "hmac under the public key": signed_with_public_key,
    "changed after signing": lambda p: lambda claims: p.signed(claims)[:-6] + "AAAAAA",
    "nonsense": lambda p: lambda claims: "a.b.c",
}


@pytest.mark.parametrize("make", SIGNATURES.values(), ids=SIGNATURES)
def test_a_token_that_the_provider_has_not_signed_is_refused(desk: Desk, guest, make) -> None:
    person = guest()
    person.provider.sign = make(person.provider)
    assert person.sign_in().status_code == 403
    assert not person.inside


def test_the_state_of_another_browser_is_refused_without_asking_the_provider(desk: Desk, guest) -> None:
    person = guest()
    attacker = person.browser()
    location = attacker.get("/sign-in/openid").headers["location"]
    stolen = requests.get(location, allow_redirects=False, timeout=10).headers["Location"]
    person.leave()
    assert person.client.get(stolen).status_code == 403  # into the attacker's account
    assert person.browser().get(stolen).status_code == 403  # without having begun
    assert person.provider.tokens == []
    assert not person.inside


def test_a_code_of_another_browser_is_refused_by_its_verifier(guest) -> None:
    person = guest()
    other = person.browser()
    location = other.get("/sign-in/openid").headers["location"]
    code = parse_qs(
        urlsplit(requests.get(location, allow_redirects=False, timeout=10).headers["Location"]).query
    )
    mine = parse_qs(urlsplit(person.way_back()).query)
    injected = {"code": code["code"][0], "state": mine["state"][0]}
    assert person.client.get("/sign-in/openid/back", params=injected).status_code == 403
    assert not person.inside


@pytest.mark.parametrize("careless", [False, True])
def test_an_answer_that_comes_again_opens_nothing(guest, careless: bool) -> None:
    person = guest()
    person.provider.codes_once = not careless  # a careless provider takes the code again
    back = person.way_back()
    assert person.client.get(back).status_code == 200
    person.client.cookies.delete("meta_dx_session")
    assert person.client.get(back).status_code == 403  # the browser's secret is gone
    assert not person.inside


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/worklist@evil.example",
        "javascript:alert(1)",
        '/worklist"><script>',
        "/sign-out",
    ],
)
def test_nobody_is_sent_to_another_site(guest, target: str) -> None:
    person = guest()
    answer = person.sign_in(target)
    assert 'content="0;url=/worklist"' in answer.text
    assert "evil" not in answer.text


def test_a_cookie_that_somebody_else_has_planted_leads_nowhere_else(guest) -> None:
    person = guest()
    back = person.way_back()
    secret = person.client.cookies["meta_dx_openid"].partition(".")[0]
    person.client.cookies.clear()
    person.client.cookies.set("meta_dx_openid", f"{secret}.https%3A%2F%2Fevil.example")
    answer = person.client.get(back)
    assert 'content="0;url=/worklist"' in answer.text
    assert "evil" not in answer.text


def test_a_sign_in_is_not_begun_from_another_site(guest) -> None:
    answer = guest().client.get("/sign-in/openid", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert "location" not in answer.headers


def test_an_error_of_the_provider_is_told_without_its_words(desk: Desk, guest) -> None:
    person = guest()
    state = parse_qs(urlsplit(person.leave().headers["location"]).query)["state"][0]
    query = {"error": "access_denied", "error_description": "<b>call 0900</b>", "state": state}
    answer = person.client.get("/sign-in/openid/back", params=query)
    assert answer.status_code == 403
    assert "has not signed you in" in answer.text
    assert "0900" not in answer.text


def test_an_answer_that_names_another_issuer_is_refused(guest) -> None:
    person = guest()
    back = person.way_back()
    assert person.client.get(back.replace("127.0.0.1", "evil.example")).status_code == 403
    assert person.provider.tokens == []


# The provider


def test_a_new_key_of_the_provider_is_fetched(guest) -> None:
    person = guest()
    person.sign_in()
    person.provider.key = RSAKey.generate_key(2048, {"kid": "second", "use": "sig"})
    person.client.cookies.clear()
    person.sign_in()
    assert person.inside
    assert person.provider.paths.count("/keys") == 2
    assert person.provider.paths.count("/.well-known/openid-configuration") == 1


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": None},
    ],
)
def test_a_provider_with_unsafe_addresses_is_not_used(guest, metadata: dict[str, object]) -> None:
    person = guest()
    person.provider.metadata = metadata
    answer = person.leave()
    assert answer.status_code == 502
    assert "location" not in answer.headers


def test_a_provider_that_is_down_leaves_the_password_form(desk: Desk, monkeypatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    person = Guest(desk, Provider(key=_KEY, port=9))
    answer = person.leave()
    assert answer.status_code == 502
    assert "cannot be reached" in answer.text
    assert 'name="password"' in answer.text


def test_who_comes_while_the_provider_is_asked_does_not_wait_for_it(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = OpenIdProvider(OpenIdOptions(provider.issuer, CLIENT))
    monkeypatch.setattr(openid, "_OTHERS", 0.01)
    entered, go_on, real = threading.Event(), threading.Event(), known._get

    def slow(address: str) -> dict[str, object]:
        entered.set()
        assert go_on.wait(30)
        return real(address)

    monkeypatch.setattr(known, "_get", slow)
    for old in (False, True):  # the first time, and when the addresses have become old
        first = threading.Thread(target=known._discovered)
        first.start()
        assert entered.wait(30)
        if old:
            assert known._discovered()["issuer"] == provider.issuer
        else:
            with pytest.raises(MetaDxError, match="cannot be reached"):
                known._discovered()
        assert first.is_alive()
        go_on.set()
        first.join()
        assert known._discovered()["issuer"] == provider.issuer
        entered.clear()
        go_on.clear()
        known._until = 0.0


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


@pytest.mark.parametrize("name", ["openid", "OpenID ", "meta_dx"])
def test_nobody_is_called_like_the_system(desk: Desk, name: str) -> None:
    with pytest.raises(MetaDxError, match="stands for the system") as fault:
        desk.accounts.add(name, "reader")
    assert fault.value.code == "bad_account"


def test_a_wrong_client_secret_is_told(guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "wrong")
    assert guest().sign_in().status_code == 403


# Roles and accounts


def test_the_claim_decides_the_role_at_every_sign_in(desk: Desk, guest) -> None:
    person = guest(role_claim="groups", roles=GROUPS)
    for groups, role in ((["x", "dx-lead", "dx-read"], "lead"), ("dx-all", "reader")):
        person.provider.claims["groups"] = groups
        assert person.sign_in().status_code == 200
        assert desk.accounts.of_subject(person.provider.named("u-1")).role == role  # type: ignore[union-attr]
    for groups in (["x"], [], None, {"dx-lead": 1}, 7):
        person.provider.claims["groups"] = groups
        answer = person.sign_in()
        assert (answer.status_code, "none of your groups" in answer.text) == (403, True)


def test_accounts_are_made_only_when_that_is_configured(desk: Desk, provider: Provider) -> None:
    provider.claims = {"sub": "u-9", "preferred_username": "Nina", "groups": ["dx-read"]}
    assert Guest(desk, provider, role_claim="groups", roles=GROUPS).sign_in().status_code == 403
    person = Guest(desk, provider, role_claim="groups", roles=GROUPS, create_accounts=True)
    assert person.sign_in().status_code == 200
    made = desk.accounts.of_subject(provider.named("u-9"))
    assert made is not None
    assert (made.name, made.role) == ("nina", "reader")
    assert person.inside


def test_a_new_account_never_takes_over_one_of_the_same_name(desk: Desk, provider: Provider) -> None:
    desk.accounts.add("nina", "lead", password=PASSWORD, must_change=False)
    person = Guest(desk, provider, role_claim="groups", roles=GROUPS, create_accounts=True)
    for name in ("Nina", "no name at all!", ""):
        provider.claims = {"sub": "u-9", "preferred_username": name, "groups": ["dx-read"]}
        answer = person.sign_in()
        assert (answer.status_code, "Ask an administrator" in answer.text) == (403, True)
    assert desk.accounts.of_subject(provider.named("u-9")) is None


def test_an_address_by_mail_counts_only_when_it_is_verified(desk: Desk, provider: Provider) -> None:
    desk.accounts.add("anna", "reader", subject=provider.named("anna@hospital.example"))
    person = Guest(desk, provider, subject_claim="email")
    for verified, status in ((False, 403), ("true", 403), (None, 403), (True, 200)):
        provider.claims = {"sub": "x", "email": "anna@hospital.example", "email_verified": verified}
        assert person.sign_in().status_code == status


def test_an_administrator_makes_an_account_with_a_subject(desk: Desk, provider: Provider, browser) -> None:
    openid = OpenIdOptions(provider.issuer, CLIENT, label="the hospital")
    desk.options = replace(desk.options, openid=openid)
    otto = browser("administrator", "otto")
    assert "OpenID subject" in otto.get("/accounts").text
    told = otto.post("/accounts", name="anna", role="reader", subject=" u-1 ").text
    assert "signs in with the hospital and has no password" in told
    assert "already" in otto.post("/accounts", name="bert", role="reader", subject="u-1").text
    assert Guest(desk, provider).sign_in().status_code == 200


# Options


def test_without_authlib_the_pages_work_and_the_section_is_refused_in_one_sentence(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("authlib", "joserfc")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "authlib", None)
    plain = TestClient(application.create_app(desk, {"testserver"}))
    assert plain.get("/sign-in").status_code == 200
    desk.options = replace(desk.options, openid=OpenIdOptions("https://provider.example", "x"))
    with pytest.raises(MetaDxError, match="pip install") as caught:
        application.create_app(desk, {"testserver"})
    assert caught.value.code == "no_authlib"
