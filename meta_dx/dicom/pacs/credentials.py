"""Logins of DICOMweb servers: from a file that only its owner may read, or from the environment."""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from meta_dx.dicom.pacs.address import DicomWebAddress
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError

TOKEN_VARIABLE = "META_DX_PACS_TOKEN"  # noqa: S105 (the name of a variable)
USER_VARIABLE = "META_DX_PACS_USER"
PASSWORD_VARIABLE = "META_DX_PACS_PASSWORD"  # noqa: S105


@dataclass(frozen=True)
class Credentials:
    """A login; the secrets do not show when it is printed.

    Parameters
    ----------
    token : str
        Bearer token; empty without one.
    user, password : str
        Basic authentication; empty without one.
    """

    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)


def credentials_of(address: DicomWebAddress, options: PacsOptions) -> Credentials:
    """Find the login of a server.

    Parameters
    ----------
    address : DicomWebAddress
        The server.
    options : PacsOptions
        Names the file. It is TOML with one section a server, ``["host:port"]`` as in the address, with ``token``,
        or ``user`` and ``password``. Without a file the variables ``META_DX_PACS_TOKEN``, or ``META_DX_PACS_USER``
        and ``META_DX_PACS_PASSWORD``, are the login.

    Returns
    -------
    Credentials
        Empty when there is none for this server.

    Raises
    ------
    MetaDxError
        ``bad_credentials`` or ``open_credentials`` (others may read the file); no content is repeated.
    """
    if not options.credentials:
        names = (TOKEN_VARIABLE, USER_VARIABLE, PASSWORD_VARIABLE)
        return _checked("The environment", *(os.environ.get(name, "") for name in names))
    path = Path(options.credentials)
    where = f"The credentials file {path}"
    try:
        with path.open("rb") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                raise MetaDxError(
                    "open_credentials",
                    f"{where} may be read by others: run 'chmod 600' on it, and change the login.",
                )
            table = tomllib.load(stream)
    except (OSError, ValueError) as fault:
        kind = type(fault).__name__
        raise MetaDxError("bad_credentials", f"{where} cannot be read ({kind}): see docs/pacs.md.") from None
    section = table.get(address.host, {})
    if not isinstance(section, dict) or set(section) - {"token", "user", "password"}:
        raise _wrong(where)
    values = [section.get(name, "") for name in ("token", "user", "password")]
    if not all(isinstance(value, str) for value in values):
        raise _wrong(where)
    return _checked(where, *values)


def _checked(where: str, token: str, user: str, password: str) -> Credentials:
    # A line break would end the header and begin another one.
    fits = all(text.isprintable() for text in (token, user, password))
    if not fits or (token and (user or password)) or bool(user) != bool(password) or not token.isascii():
        raise _wrong(where)
    return Credentials(token, user, password)


def _wrong(where: str) -> MetaDxError:
    return MetaDxError(
        "bad_credentials",
        f"{where} does not give one login: allowed is a token, or a user and a password (docs/pacs.md).",
    )
