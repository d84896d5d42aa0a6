"""``multipart/related`` bodies, copied part by part without ever holding one in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from email.message import Message

_HEADER_BYTES = 1 << 16


class CutOffError(Exception):
    """A body that ends before its last boundary, or is no multipart body."""


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary of a multipart content type; None when it is another type."""
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_maintype() != "multipart":
        return None
    boundary = message.get_param("boundary")
    return boundary.encode() if isinstance(boundary, str) and boundary else None


def copy_parts(chunks: Iterable[bytes], boundary: bytes, write: Callable[[int, bytes], None]) -> int:
    """Copy the contents of the parts of a body.

    Parameters
    ----------
    chunks : iterable of bytes
        The body, cut anywhere.
    boundary : bytes
        What separates the parts, as the content type names it.
    write : callable
        Called with the number of the part, from 0, and the next bytes of it.

    Returns
    -------
    int
        Number of parts.

    Raises
    ------
    CutOffError
        The closing boundary is missing.
    """
    delimiter = b"\r\n--" + boundary
    rest, parts, inside = b"\r\n", 0, False  # the first delimiter may stand at the very beginning
    stream = iter(chunks)
    while True:
        at = rest.find(delimiter)
        if at < 0:
            safe = max(0, len(rest) - len(delimiter) + 1)
            if inside and safe:
                write(parts - 1, rest[:safe])
            rest = rest[safe:] + _next(stream)
            continue
        if inside and at:
            write(parts - 1, rest[:at])
        rest = rest[at + len(delimiter) :]
        while len(rest) < 2:
            rest += _next(stream)
        if rest.startswith(b"--"):
            return parts
        rest, parts, inside = _after_header(rest, stream), parts + 1, True


def _after_header(rest: bytes, stream: Iterable[bytes]) -> bytes:
    while True:
        end = rest.find(b"\r\n\r\n")
        if end >= 0:
            return rest[end + 4 :]
        if len(rest) > _HEADER_BYTES:
            raise CutOffError
        rest += _next(stream)


def _next(stream: Iterable[bytes]) -> bytes:
    for chunk in stream:
        return chunk
    raise CutOffError
