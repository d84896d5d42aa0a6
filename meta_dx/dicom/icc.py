"""Colour profiles (ICC.1) without their texts: a copyright, a description, the name of a device, a date."""

from __future__ import annotations

import struct

_HEADER = 128
_ENTRY = struct.Struct(">4sII")
# Types of tags that hold numbers only.
_NUMERIC = frozenset(
    {b"XYZ ", b"curv", b"para", b"mft1", b"mft2", b"mAB ", b"mBA ", b"sf32", b"meas", b"view", b"sig "}
)
# Parts of the header: size; version, class, spaces; signature; intent and illuminant.
_HEADER_KEPT = ((0, 4), (8, 24), (36, 40), (64, 80))
_TYPE = 8  # bytes of a tag's type and of a reserve


def without_texts(profile: bytes) -> bytes:
    """Return a profile in which everything but the numbers of the colour transform is zero.

    Parameters
    ----------
    profile : bytes
        The profile.

    Returns
    -------
    bytes
        Of the same length; empty where the bytes are no profile.
    """
    if len(profile) < _HEADER + 4 or profile[36:40] != b"acsp":
        return b""
    kept = bytearray(len(profile))
    for begin, end in _HEADER_KEPT:
        kept[begin:end] = profile[begin:end]
    (count,) = struct.unpack(">I", profile[_HEADER : _HEADER + 4])
    table_end = _HEADER + 4 + count * _ENTRY.size
    if table_end > len(profile):
        return b""
    kept[_HEADER:table_end] = profile[_HEADER:table_end]
    for _, offset, size in _ENTRY.iter_unpack(profile[_HEADER + 4 : table_end]):
        kind = profile[offset : offset + 4]
        if offset >= table_end and offset + size <= len(profile):
            end = offset + (size if kind in _NUMERIC else _TYPE)
            kept[offset:end] = profile[offset:end]
    return bytes(kept)
