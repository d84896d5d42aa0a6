"""From bytes to a data set: what is DICOM, what is cut short, what would swell.

pydicom reads a file that ends in the middle of an element without a word, and inflates whatever it is given;
both are caught here.
"""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)
from pydicom.values import converters

from meta_dx.dicom.encoding import content_start
from meta_dx.dicom.quick import QuickDataset
from meta_dx.dicom.rejections import RefusedError, RejectionCode

_PREAMBLE = 128
_MAGIC = b"DICM"
_META_GROUP = 0x0002
_LONG_META = (b"OB", b"OW", b"UN", b"UT")  # representations of the meta group with a length of 32 bits
_DEFLATED = DeflatedExplicitVRLittleEndian.encode("ascii")
_UNDEFINED = 0xFFFFFFFF
_HEAD = _PREAMBLE + len(_MAGIC)  # bytes that tell whether a file may be DICOM
_DELIMITER = 8  # bytes of a sequence delimitation item
_MARKS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality")


def parse(data: bytes, largest: int) -> Dataset:
    """Parse a DICOM file and give it a transfer syntax.

    Parameters
    ----------
    data : bytes
        The whole file.
    largest : int
        Bytes that a deflated data set may have.

    Returns
    -------
    pydicom.dataset.Dataset
        Values are still unparsed; ``file_meta.TransferSyntaxUID`` is set.

    Raises
    ------
    RefusedError
        ``empty_file``, ``not_dicom``, ``truncated``, ``expansion_limit``, ``damaged_header``,
        ``unsupported_transfer_syntax`` or ``media_directory``.
    """
    if not data:
        raise RefusedError(RejectionCode.EMPTY_FILE)
    announced = data[_PREAMBLE : _PREAMBLE + 4] == _MAGIC
    if not announced and not _looks_like_dicom(data, len(data)):
        raise RefusedError(RejectionCode.NOT_DICOM)
    size = _size_of_content(data, largest) if announced else len(data)
    try:
        dataset: Dataset = QuickDataset.of(dcmread(BytesIO(data), force=True))
        early = _ends_early(dataset, size)
        known = announced or any(keyword in dataset for keyword in _MARKS)
    except MemoryError:
        raise
    except struct.error as fault:  # a length or a tag of which some bytes are missing
        raise RefusedError(RejectionCode.TRUNCATED if announced else RejectionCode.NOT_DICOM) from fault
    except Exception as fault:
        code = RejectionCode.DAMAGED_HEADER if announced else RejectionCode.NOT_DICOM
        raise RefusedError(code, f"parser raised {type(fault).__name__}") from fault
    if not known:
        raise RefusedError(RejectionCode.NOT_DICOM)
    _refuse_directory(dataset)
    if early:
        raise RefusedError(RejectionCode.TRUNCATED)
    _name_transfer_syntax(dataset)
    return dataset


def parse_own(data: bytes, meta: FileMetaDataset) -> QuickDataset:
    """Parse a file that :class:`~meta_dx.dicom.encoding.Encoder` wrote, as ``dcmread`` would in twice the time.

    Parameters
    ----------
    data : bytes
        The whole file.
    meta : pydicom.dataset.FileMetaDataset
        A file meta group with its transfer syntax.

    Returns
    -------
    QuickDataset
    """
    syntax = UID(meta.TransferSyntaxUID)
    if syntax == DeflatedExplicitVRLittleEndian:
        return QuickDataset.of(dcmread(BytesIO(data)))
    stream = BytesIO(data)
    stream.seek(content_start(data))
    dataset = read_dataset(stream, syntax.is_implicit_VR, syntax.is_little_endian)
    dataset.__dict__["file_meta"] = meta
    return QuickDataset.of(dataset)


def may_be_dicom(path: Path) -> bool:
    """Tell by its beginning whether a file may be DICOM; one that cannot be opened may be.

    This is all that the process that keeps the books does with the bytes of a file: 132 of them are held against what
    DICOM begins with. Nothing is followed, unpacked or kept; what parses runs in a reading process.
    """
    try:
        with path.open("rb", buffering=0) as stream:
            head, size = stream.read(_HEAD), os.fstat(stream.fileno()).st_size
    except OSError:
        return True
    return head[_PREAMBLE:] == _MAGIC or _looks_like_dicom(head, size)


def _looks_like_dicom(head: bytes, size: int) -> bool:
    """Tell whether a file without the DICM mark begins with a plausible first element."""
    if len(head) < 16:
        return False
    for order in "<>":
        group, element, vr = struct.unpack(f"{order}HH2s", head[:6])
        if group not in (0x0002, 0x0008) or element > 0x0080:
            continue
        if vr.isalpha() and vr.decode("ascii") in converters:
            return True
        implicit = struct.unpack(f"{order}I", head[4:8])[0]
        if order == "<" and implicit <= min(size, 1 << 16) and implicit % 2 == 0:
            return True
    return False


def _size_of_content(data: bytes, largest: int) -> int:
    """Return how many bytes the parser will see; refuse files that end in their meta group or would swell."""
    place, deflated = _PREAMBLE + len(_MAGIC), False
    while place + 8 <= len(data):
        group, _, vr, length = struct.unpack("<HH2sH", data[place : place + 8])
        if group != _META_GROUP:
            break
        place += 8
        if vr in _LONG_META:
            (length,) = struct.unpack("<I", data[place : place + 4].ljust(4, b"\0"))
            place += 4
        deflated = deflated or data[place : place + length].rstrip(b"\0 ") == _DEFLATED
        place += length
    else:  # not even the header of an element follows
        raise RefusedError(RejectionCode.TRUNCATED)
    return _inflated_size(data[place:], largest) if deflated else len(data)


def _inflated_size(packed: bytes, largest: int) -> int:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    size, rest = 0, packed
    try:
        while rest and not engine.eof:
            size += len(engine.decompress(rest, 1 << 20))
            if size > largest:
                raise RefusedError(RejectionCode.EXPANSION_LIMIT)
            rest = engine.unconsumed_tail
    except zlib.error as fault:
        raise RefusedError(RejectionCode.DAMAGED_HEADER, "the deflated data are damaged") from fault
    if not engine.eof:
        raise RefusedError(RejectionCode.TRUNCATED)
    return size


def _ends_early(dataset: Dataset, size: int) -> bool:
    tags = list(dataset.keys())
    if not tags:
        return True  # pydicom gives up everything when a value of undefined length has no end
    # pydicom keeps the elements in the order of the file.
    last = dataset.get_item(tags[-1])
    if not isinstance(last, RawDataElement):
        return False
    stored = len(last.value or b"")
    end = last.value_tell + (stored + _DELIMITER if last.length == _UNDEFINED else last.length)
    if end > size:
        return True
    # An element that could not be read to its end was dropped silently: its bytes are left over.
    return size - end >= _DELIMITER or (size > end and "PixelData" not in dataset)


def _refuse_directory(dataset: Dataset) -> None:
    storage = dataset.file_meta.get("MediaStorageSOPClassUID") if hasattr(dataset, "file_meta") else None
    if storage == MediaStorageDirectoryStorage or "DirectoryRecordSequence" in dataset:
        raise RefusedError(RejectionCode.MEDIA_DIRECTORY)


def _name_transfer_syntax(dataset: Dataset) -> None:
    named = str(dataset.file_meta.get("TransferSyntaxUID") or "").strip(" \0")
    if named:
        dataset.file_meta.TransferSyntaxUID = UID(named)
        if not UID(named).is_transfer_syntax:
            raise RefusedError(RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX)
        return
    pixels = dataset.get_item("PixelData") if "PixelData" in dataset else None
    if isinstance(pixels, RawDataElement) and pixels.length == _UNDEFINED:
        raise RefusedError(
            RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX, "the pixels are packed and it is not said how"
        )
    implicit, little = dataset.original_encoding
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    else:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
