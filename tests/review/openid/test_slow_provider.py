"""A provider that fails, drips or does not answer holds nobody up."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from meta_dx.errors import MetaDxError
from meta_dx.review import openid
from meta_dx.review.openid import OpenIdProvider
from meta_dx.review.openid_options import OpenIdOptions
from tests.review.openid.provider import CLIENT, Provider


def stuck(known: OpenIdProvider, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make the provider fail; return what it was asked."""
    asked: list[str] = []

    def get(address: str) -> dict[str, object]:
        asked.append(address)
        raise known._unreachable()

    monkeypatch.setattr(known, "_get", get)
    return asked


def test_a_provider_that_has_failed_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    known = OpenIdProvider(OpenIdOptions("https://id.example", CLIENT))
    asked = stuck(known, monkeypatch)
    for _ in range(3):
        with pytest.raises(MetaDxError, match="cannot be reached"):
            known.address(known.attempts.begin(), "https://x/back")
    assert len(asked) == 1
    known._until = 0.0
    with pytest.raises(MetaDxError, match="cannot be reached"):
        known.address(known.attempts.begin(), "https://x/back")
    assert len(asked) == 2


@pytest.mark.parametrize("what", ["addresses", "token"])
def test_an_answer_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    ended = threading.Event()

    class Dripping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while not ended.wait(0.05):
                    self.wfile.write(b" ")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Timer(20, ended.set).start()
    monkeypatch.setattr(openid, "_DEADLINE", 0.3)
    issuer = f"http://127.0.0.1:{server.server_port}"
    known = OpenIdProvider(OpenIdOptions(issuer, CLIENT))
    try:
        with pytest.raises(MetaDxError, match="cannot be reached"):
            if what == "addresses":
                known._discovered()
            else:
                known._known, known._until = {"token_endpoint": issuer}, time.monotonic() + 100
                known._token("code", known.attempts.begin(), "https://x/back")
        assert not ended.is_set()
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


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
