"""A provider of OpenID Connect, and guests who come from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import requests
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey

from meta_dx.review import app as application
from meta_dx.review.desk import Desk
from meta_dx.review.openid_options import SECRET_VARIABLE, OpenIdOptions
from tests.review.openid.provider import CLIENT, SECRET, Provider, providing

KEY = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    with providing(Provider(key=KEY)) as made:
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
