from __future__ import annotations

from pathlib import Path

import pytest

from meta_dx.dicom.pacs.address import DicomWebAddress
from meta_dx.dicom.pacs.credentials import (
    PASSWORD_VARIABLE,
    TOKEN_VARIABLE,
    USER_VARIABLE,
    Credentials,
    credentials_of,
)
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError

SERVER = DicomWebAddress("https://pacs.example.org:8443/web")


def written(folder: Path, text: str, mode: int = 0o600) -> PacsOptions:
    path = folder / "logins.toml"
    path.write_text(text)
    path.chmod(mode)
    return PacsOptions(credentials=str(path))


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (TOKEN_VARIABLE, USER_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_each_server_gets_its_own_login_and_no_other(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "of-the-environment")
    text = '["pacs.example.org:8443"]\ntoken = "t1"\n["other.example.org"]\nuser = "u"\npassword = "p"\n'
    options = written(tmp_path, text)
    assert credentials_of(SERVER, options) == Credentials("t1")
    assert credentials_of(DicomWebAddress("https://other.example.org/w"), options) == Credentials(
        "", "u", "p"
    )
    assert credentials_of(DicomWebAddress("https://third.example.org/w"), options) == Credentials()


def test_the_environment_serves_where_there_is_no_file(monkeypatch) -> None:
    assert credentials_of(SERVER, PacsOptions()) == Credentials()
    monkeypatch.setenv(USER_VARIABLE, "u")
    monkeypatch.setenv(PASSWORD_VARIABLE, "p")
    assert credentials_of(SERVER, PacsOptions()) == Credentials("", "u", "p")


def test_a_login_does_not_show_when_it_is_printed() -> None:
    assert "s3cret" not in f"{Credentials('s3cret')} {Credentials('', 'u', 's3cret')!r}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused(tmp_path, mode) -> None:
    with pytest.raises(MetaDxError) as caught:
        credentials_of(SERVER, written(tmp_path, '["pacs.example.org:8443"]\ntoken = "s3cret"\n', mode))
    assert caught.value.code == "open_credentials"


@pytest.mark.parametrize(
    "text",
    [
        "s3cret = [",
        '["pacs.example.org:8443"]\ntoken = "s3cret"\nuser = "u"\npassword = "p"\n',
        '["pacs.example.org:8443"]\nuser = "s3cret"\n',
        '["pacs.example.org:8443"]\ntoken = 5\n',
        '["pacs.example.org:8443"]\ntoken = "s3cret\\r\\nX-Other: header"\n',
        '["pacs.example.org:8443"]\ntokens = "s3cret"\n',
        '"pacs.example.org:8443" = "s3cret"\n',
    ],
)
def test_what_is_no_login_is_refused_without_repeating_it(tmp_path, text) -> None:
    with pytest.raises(MetaDxError) as caught:
        credentials_of(SERVER, written(tmp_path, text))
    assert caught.value.code == "bad_credentials" and "s3cret" not in str(caught.value)
    assert (
        caught.value.__cause__ is None and caught.value.__suppress_context__
    ) or caught.value.__context__ is None
