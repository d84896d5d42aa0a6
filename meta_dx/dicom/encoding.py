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


class Encoder:
    """Encodes elements for one transfer syntax (PS3.5, chapter 7).

    Parameters
    ----------
    transfer_syntax : str
        UID of the transfer syntax.
    """

    def __init__(self, transfer_syntax: str) -> None:
        self._transfer_syntax = transfer_syntax
        uid = UID(transfer_syntax)
        self._implicit = uid.is_implicit_VR
        self._order = "<" if uid.is_little_endian else ">"
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
        return self.element(tag, "US", struct.pack(f"{self._order}H", value))

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
        if self._transfer_syntax == DeflatedExplicitVRLittleEndian:
            engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            content = engine.compress(content) + engine.flush()
            content += b"\0" * (len(content) % 2)
        return b"\0" * 128 + b"DICM" + _meta_group(sop_class, sop_instance, self._transfer_syntax) + content

    def _header(self, tag: int, vr: str, length: int) -> bytes:
        if self._implicit:
            return self._tag(tag) + struct.pack(f"{self._order}I", length)
        if vr in _LONG:
            return self._tag(tag) + vr.encode() + struct.pack(f"{self._order}HI", 0, length)
        if length > 0xFFFF:
            # PS3.5, 6.2.2: what does not fit the short form of its representation is written as unknown.
            return self._tag(tag) + b"UN" + struct.pack(f"{self._order}HI", 0, length)
        return self._tag(tag) + vr.encode() + struct.pack(f"{self._order}H", length)

    def _item(self, content: bytes) -> bytes:
        return self._tag(_ITEM) + struct.pack(f"{self._order}I", len(content)) + content

    def _tag(self, tag: int) -> bytes:
        return struct.pack(f"{self._order}HH", tag >> 16, tag & 0xFFFF)


def _joined(elements: Mapping[int, bytes]) -> bytes:
    return b"".join(elements[tag] for tag in sorted(elements))


def _meta_group(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    explicit = Encoder("1.2.840.10008.1.2.1")  # the meta group is always explicit, little endian
    content = b"".join(
        (
            explicit.element(0x00020001, "OB", b"\0\1"),
            explicit.text(0x00020002, "UI", sop_class),
            explicit.text(0x00020003, "UI", sop_instance),
            explicit.text(0x00020010, "UI", transfer_syntax),
            explicit.text(0x00020012, "UI", _IMPLEMENTATION),
            explicit.text(0x00020013, "SH", "META_DX"),
        )
    )
    return explicit.element(0x00020000, "UL", struct.pack("<I", len(content))) + content
