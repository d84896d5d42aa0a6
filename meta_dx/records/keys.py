"""A key of surrogates in a file of its own, for who hands data out without a home."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from meta_dx.errors import MetaDxError
from meta_dx.home import storage_faults

_BYTES = 32


def key_file(path: Path) -> bytes:
    """Read a key, made on first use and readable by its owner only.

    Parameters
    ----------
    path : Path
        File with 64 hexadecimal digits.

    Returns
    -------
    bytes
        32 bytes.

    Raises
    ------
    MetaDxError
        ``bad_key`` when the file holds something else; a storage fault.
    """
    with storage_faults(path):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            content = path.read_bytes().strip()
        else:
            content = secrets.token_hex(_BYTES).encode()
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content + b"\n")
    try:
        key = bytes.fromhex(content.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise MetaDxError(
            "bad_key",
            f"{path} is no key file: it must hold {2 * _BYTES} hexadecimal digits and nothing else.",
        )
    return key
