"""Section ``[review.openid]``: what it refuses, and where its secret comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from joserfc.jwk import RSAKey

from meta_dx.errors import MetaDxError
from meta_dx.review.openid_options import OpenIdOptions, OpenIdRoles

_KEY, _OTHER = (RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}) for kid in ("first", "first"))
GROUPS = OpenIdRoles(lead=("dx-lead",), reader=("dx-read", "dx-all"), administrator=("dx-admin",))


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
