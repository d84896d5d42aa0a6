"""Section ``[review.openid]``: what it refuses, where its secret comes from, and what it needs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from meta_dx.errors import MetaDxError
from meta_dx.review import app as application
from meta_dx.review.desk import Desk
from meta_dx.review.openid_options import OpenIdOptions


@pytest.mark.parametrize(
    "options",
    [
        {"issuer": "http://provider.example", "client_id": "x"},
        {"issuer": "https://user@provider.example", "client_id": "x"},
        {"issuer": "https://provider.example"},
        {"create_accounts": True},
        {"role_claim": "groups"},
        {"prompt": "none"},
        {"label": ""},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(MetaDxError):
        OpenIdOptions(**options)  # type: ignore[arg-type]


def test_the_secret_comes_from_a_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    options = OpenIdOptions(secret_file=str(file))
    file.chmod(0o644)
    with pytest.raises(MetaDxError) as caught:
        options.secret()
    assert caught.value.code == "open_openid_secret"
    assert "s3cret" not in str(caught.value)
    file.chmod(0o600)
    assert options.secret() == "s3cret"
    file.write_text("")
    with pytest.raises(MetaDxError, match="is empty"):
        options.secret()


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
