"""Messages between this process and one that reads untrusted files: a length-framed object of JSON, and bytes.

Not pickle: whoever takes over the reading process by a hostile file could otherwise run code here. A message is
two lengths of eight bytes (little endian), that much JSON, that many bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

#: Gives the next bytes, at most as many as asked for; none at the end.
Receive = Callable[[int], bytes]

_LENGTHS = struct.Struct("<QQ")
_WORDS = 1 << 26  # bytes of JSON: no row of ours is longer
_PIECE = 1 << 20


class BrokenMessageError(Exception):
    """What came is no message: the other side has died, or writes something else."""


def packed(words: dict[str, Any], content: bytes = b"") -> tuple[bytes, bytes]:
    """Return the two parts of a message; a scalar of numpy becomes a number.

    Parameters
    ----------
    words : dict
        What becomes JSON. NaN, infinity and lone surrogates (odd bytes of a path) come through.
    content : bytes
        What comes behind it as it is.

    Returns
    -------
    tuple of bytes
        Head and content, to be written one after the other.
    """
    text = json.dumps(words, separators=(",", ":"), default=_plain).encode("ascii")
    return _LENGTHS.pack(len(text), len(content)) + text, content


def received(receive: Receive, most: int) -> tuple[dict[str, Any], bytes]:
    """Receive one message.

    Parameters
    ----------
    receive : callable
        Where it comes from.
    most : int
        Bytes that its content may have.

    Returns
    -------
    tuple of dict and bytes

    Raises
    ------
    BrokenMessageError
        The stream ends, a length is impossible, or the JSON is none.
    """
    words_size, content_size = _LENGTHS.unpack(_exactly(receive, _LENGTHS.size))
    if words_size > _WORDS or content_size > most:
        raise BrokenMessageError
    try:
        words = json.loads(_exactly(receive, words_size))
    except (ValueError, RecursionError) as fault:
        raise BrokenMessageError from fault
    if not isinstance(words, dict):
        raise BrokenMessageError
    return words, _exactly(receive, content_size)


def _exactly(receive: Receive, size: int) -> bytes:
    pieces, missing = [], size
    while missing:
        piece = receive(min(missing, _PIECE))
        if not piece:
            raise BrokenMessageError
        pieces.append(piece)
        missing -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else value.item()
