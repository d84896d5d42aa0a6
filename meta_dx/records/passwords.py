"""Passwords as Argon2id hashes (RFC 9106)."""

from __future__ import annotations

import secrets
from functools import cache
from typing import TYPE_CHECKING

from meta_dx.errors import MetaDxError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST = 12


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()


def hashed_password(password: str) -> str:
    """Hash a password.

    Raises
    ------
    MetaDxError
        ``bad_password``.
    """
    if len(password) < SHORTEST or len(password) > 1024:
        raise MetaDxError("bad_password", f"A password has {SHORTEST} to 1024 characters.")
    return _hasher().hash(password)


@cache
def _decoy() -> str:
    return _hasher().hash(secrets.token_urlsafe(16))


def password_matches(hashed: str | None, password: str) -> bool:
    """Compare; a name that nobody has costs the same time as one that somebody has."""
    from argon2.exceptions import VerificationError

    try:
        _hasher().verify(hashed or _decoy(), password[:1024])
    except VerificationError:
        return False
    return hashed is not None
