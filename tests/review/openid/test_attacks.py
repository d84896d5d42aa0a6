"""Every way of lying about a sign-in that we know: tokens, codes, states and addresses."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from joserfc.jwk import RSAKey

from meta_dx.review.desk import Desk
from tests.review.openid.conftest import last
from tests.review.openid.provider import CLIENT, signed_with_public_key, unsigned

OTHER_KEY = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})  # of the name of the provider's


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
    "another key of the same name": lambda p: lambda claims: p.signed(claims, OTHER_KEY),
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
