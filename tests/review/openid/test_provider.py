"""What the provider may change, and what it may not."""

from __future__ import annotations

import pytest
from joserfc.jwk import RSAKey

from meta_dx.review.desk import Desk
from meta_dx.review.openid_options import SECRET_VARIABLE
from tests.review.openid.conftest import KEY, Guest
from tests.review.openid.provider import SECRET, Provider


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
    person = Guest(desk, Provider(key=KEY, port=9))
    answer = person.leave()
    assert answer.status_code == 502
    assert "cannot be reached" in answer.text
    assert 'name="password"' in answer.text


def test_a_wrong_client_secret_is_told(guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "wrong")
    assert guest().sign_in().status_code == 403
