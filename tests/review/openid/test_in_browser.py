"""Signing in through a provider on another site, in a real browser: cookies, redirects and the page's policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from meta_dx.review.desk import Desk
from meta_dx.review.openid_options import SECRET_VARIABLE, OpenIdOptions
from tests.review.chromium import needs_chromium, opening
from tests.review.openid.provider import CLIENT, SECRET, Provider, providing
from tests.review.serving import served

pytestmark = needs_chromium


@pytest.fixture
def address(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    with providing(Provider()) as provider:
        desk.accounts.add("nina", "lead", subject=provider.named("u-1"))
        openid = OpenIdOptions(provider.issuer, CLIENT, label="your hospital account")
        desk.options = replace(desk.options, openid=openid)
        with served(desk) as where:
            yield where.replace("127.0.0.1", "localhost")  # for a browser another site than the provider's


def test_there_and_back_and_out(address: str) -> None:
    with opening(address) as sign_in:
        page = sign_in()
        page.get_by_role("link", name="Sign in with your hospital account").click()
        page.wait_for_url(f"{address}/worklist")
        assert page.get_by_text("nina · lead").is_visible()
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{address}/sign-in?left=1")
        assert page.get_by_text("is still signed in there").is_visible()
        page.goto(f"{address}/worklist")
        page.wait_for_url(f"{address}/sign-in")
