"""The pages behind a proxy that speaks TLS with the browsers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from meta_dx.cli.review import server_config
from meta_dx.errors import MetaDxError
from meta_dx.review.app import create_app
from meta_dx.review.desk import Desk


@pytest.fixture
def cookie_of(desk: Desk) -> Callable[..., str]:
    """The cookie of a sign-in form that came by https, as somebody at an address says."""

    def ask(address: str, *proxies: str) -> str:
        config = server_config(create_app(desk, {"testserver"}), "127.0.0.1", 0, proxies)
        config.load()
        client = TestClient(config.loaded_app, client=(address, 40000))
        return client.get("/sign-in", headers={"x-forwarded-proto": "https"}).headers["set-cookie"]

    return ask


@pytest.mark.parametrize("named", ["192.0.2.7", "192.0.2.0/24"])
def test_a_proxy_on_another_machine_is_believed_when_it_is_named(
    cookie_of: Callable[..., str], named: str
) -> None:
    assert "Secure" in cookie_of("192.0.2.7", named)
    assert "Secure" not in cookie_of("192.0.2.7")
    assert "Secure" not in cookie_of("198.51.100.7", named)
    assert "Secure" in cookie_of("127.0.0.1", named)


@pytest.mark.parametrize("named", ["*", "proxy.example", "192.0.2.0/99", ""])
def test_what_is_no_address_is_refused(desk: Desk, named: str) -> None:
    with pytest.raises(MetaDxError, match="cannot be a proxy") as fault:
        server_config(create_app(desk), "127.0.0.1", 0, [named])
    assert fault.value.code == "bad_proxy"
