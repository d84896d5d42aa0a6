"""Write DICOM elements to bytes.

pydicom's writer parses and formats every value again and takes longer than all the rest of ingest. What we
store is a short list of elements whose bytes are known already, so this is the small part of PS3.5 that puts
a header before each of them. The bytes depend on nothing but the content: the same instance gives the same
file on every machine and with every version of pydicom.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT"})
_SPACE_PADDED = frozenset({"AS", "CS", "DA", "DS", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UT"})
_IMPLEMENTATION = "2.25.233846437254158126178473561170219061017"
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_SEQUENCE_DELIMITER = 0xFFFEE0DD
_ITEM = 0xFFFEE000
_START = b"\0" * 128 + b"DICM"
_GROUP_LENGTH = 12  # bytes of the element that says how long the rest of the meta group is


class Encoder:
    """Encodes elements for one transfer syntax (PS3.5, chapter 7).

    Parameters
    ----------
    transfer_syntax : str
        UID of the transfer syntax.
    """

    def __init__(self, transfer_syntax: str) -> None:
        self.transfer_syntax = transfer_syntax
        uid = UID(transfer_syntax)
        self._implicit = uid.is_implicit_VR
        order = "<" if uid.is_little_endian else ">"
        self._two, self._four = struct.Struct(f"{order}H"), struct.Struct(f"{order}I")
        self._tagged = struct.Struct(f"{order}HH")
        self.encapsulated = uid.is_encapsulated

    def element(self, tag: int, vr: str, value: bytes) -> bytes:
        """Encode one element, its value in the byte order of the transfer syntax; odd lengths are padded."""
        if len(value) % 2:
            value += b" " if vr in _SPACE_PADDED else b"\0"
        return self._header(tag, vr, len(value)) + value

    def text(self, tag: int, vr: str, value: str) -> bytes:
        """Encode text (UTF-8)."""
        return self.element(tag, vr, value.encode())

    def short(self, tag: int, value: int) -> bytes:
        """Encode an unsigned number of 16 bits."""
        return self.element(tag, "US", self._two.pack(value))

    def sequence(self, tag: int, items: Iterable[Mapping[int, bytes]]) -> bytes:
        """Encode a sequence of items of defined length, each given as encoded elements by tag."""
        encoded = b"".join(self._item(_joined(item)) for item in items)
        return self._header(tag, "SQ", len(encoded)) + encoded

    def encapsulated_pixels(self, value: bytes) -> bytes:
        """Encode compressed pixel data, given as items without the delimiter at the end."""
        delimiter = self._tag(_SEQUENCE_DELIMITER) + b"\0\0\0\0"
        return self._header(_PIXEL_DATA, "OB", _UNDEFINED) + value + delimiter

    def file(self, sop_class: str, sop_instance: str, elements: Mapping[int, bytes]) -> bytes:
        """Put a complete file together.

        Parameters
        ----------
        sop_class, sop_instance : str
            For the meta group.
        elements : mapping of int to bytes
            Encoded elements by tag, in any order.

        Returns
        -------
        bytes
            Preamble, meta group and data set.
        """
        content = _joined(elements)
        if self.transfer_syntax == DeflatedExplicitVRLittleEndian:
            engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            content = engine.compress(content) + engine.flush()
            content += b"\0" * (len(content) % 2)
        return _START + _meta_group(sop_class, sop_instance, self.transfer_syntax) + content

    def _header(self, tag: int, vr: str, length: int) -> bytes:
        if self._implicit:
            return self._tag(tag) + self._four.pack(length)
        if vr in _LONG:
            return self._tag(tag) + vr.encode() + b"\0\0" + self._four.pack(length)
        if length > 0xFFFF:
            # PS3.5, 6.2.2: what does not fit the short form of its representation is written as unknown.
            return self._tag(tag) + b"UN\0\0" + self._four.pack(length)
        return self._tag(tag) + vr.encode() + self._two.pack(length)

    def _item(self, content: bytes) -> bytes:
        return self._tag(_ITEM) + self._four.pack(len(content)) + content

    def _tag(self, tag: int) -> bytes:
        return self._tagged.pack(tag >> 16, tag & 0xFFFF)


def content_start(data: bytes) -> int:
    """Return where the data set begins in a file that :meth:`Encoder.file` made."""
    end = len(_START) + _GROUP_LENGTH
    return end + int.from_bytes(data[end - 4 : end], "little")


def _joined(elements: Mapping[int, bytes]) -> bytes:
    return b"".join(elements[tag] for tag in sorted(elements))


def _meta_group(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    content = b"".join(
        (
            _EXPLICIT.element(0x00020001, "OB", b"\0\1"),
            _EXPLICIT.text(0x00020002, "UI", sop_class),
            _EXPLICIT.text(0x00020003, "UI", sop_instance),
            _EXPLICIT.text(0x00020010, "UI", transfer_syntax),
            _EXPLICIT.text(0x00020012, "UI", _IMPLEMENTATION),
            _EXPLICIT.text(0x00020013, "SH", "META_DX"),
        )
    )
    return _EXPLICIT.element(0x00020000, "UL", struct.pack("<I", len(content))) + content


_EXPLICIT = Encoder("1.2.840.10008.1.2.1")  # the meta group is always explicit, little endian
