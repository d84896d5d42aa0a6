"""Files in which a token, a date, an age and a UID stand wherever a file can hold one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import config, dcmread
from pydicom.datadict import DicomDictionary, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from meta_dx.dicom.deidentification import KEPT_SEQUENCES
from tests.dicom.builders import write_instance

TOKEN = "QZTOKENQZ"  # noqa: S105
DATE, TIME, AGE, UID = "19370513", "031733.713", "083Y", "1.2.3.4.98765432123456789"
#: What must be found nowhere: as text, and as UTF-16.
PLANTED = (TOKEN, DATE, "1937-05-13", TIME, AGE, UID)

# What a file needs to be read as a picture, and what the options retain.
_NEEDED = (
    "SpecificCharacterSet SOPClassUID TransferSyntaxUID PhotometricInterpretation PatientSex PatientAge Manufacturer "
    "ManufacturerModelName ConversionType BurnedInAnnotation RecognizableVisualFeatures PixelData "
    "FloatPixelData DoubleFloatPixelData ExtendedOffsetTable ExtendedOffsetTableLengths DirectoryRecordSequence "
    "NumberOfFrames RescaleSlope RescaleIntercept ModalityLUTSequence VOILUTSequence StudyDate"
).split()
_BYTES = {"OB", "OW", "OD", "OF", "OL", "OV", "UN"}
_VALUES = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "DS", "IS"), TOKEN),
    **dict.fromkeys(_BYTES, TOKEN.encode() * 8),
    "DA": DATE,
    "DT": DATE + TIME,
    "TM": TIME,
    "AS": AGE,
    "UI": UID,
}


def every_attribute() -> Iterator[tuple[int, str]]:
    """Yield tag and representation of each attribute of the dictionary that may be planted."""
    for tag, (vr, _, _, _, keyword) in sorted(DicomDictionary.items()):
        if tag >> 16 > 0x0002 and tag & 0xFFFF and keyword not in _NEEDED and tag >> 16 != 0xFFFE:
            yield tag, vr.split(" or ")[-1]


_EVERY = tuple(every_attribute())
_TRAVEL = frozenset(tag_for_keyword(keyword) for keyword in KEPT_SEQUENCES)  # into what the home keeps


def plant(dataset: Dataset, *, depth: int = 4, step: int = 1) -> None:
    """Plant every ``step``-th attribute of the dictionary, sequences in sequences down to a depth."""
    item = _item(depth - 1, step) if depth else None  # the same in every sequence
    for at, (tag, vr) in enumerate(_EVERY):
        if vr in _VALUES and at % step == 0 and tag not in dataset:
            _put(dataset, tag, vr, _VALUES[vr])
        elif vr == "SQ" and item is not None and (tag in _TRAVEL or at % (20 * step) == 0):
            dataset.add_new(tag, "SQ", Sequence([item]))
    _private(dataset)
    for overlay in (0x6000, 0x6002, 0x5000):
        dataset.add_new((overlay, 0x0022), "LO", TOKEN)
        dataset.add_new((overlay, 0x3000), "OW", TOKEN.encode() * 2)


def _item(depth: int, step: int) -> Dataset:
    item = Dataset()
    for at, (tag, vr) in enumerate(_EVERY):
        if vr in _VALUES and at % (step * 100 + 7) == depth % 7:
            _put(item, tag, vr, _VALUES[vr])
    for keyword, vr in (("CodeValue", "SH"), ("CodeMeaning", "LO"), ("CodingSchemeDesignator", "SH")):
        item.add_new(keyword, vr, TOKEN)
    item.StudyDate, item.ReferencedSOPInstanceUID, item.PatientName, item.RescaleType = (
        DATE,
        UID,
        TOKEN,
        TOKEN,
    )
    item.FrameType = ["ORIGINAL", TOKEN]
    _private(item)
    if depth:
        names = (
            "FrameContentSequence",
            "PixelMeasuresSequence",
            "ReferencedImageSequence",
            "ContentSequence",
        )
        setattr(item, names[depth % 4], Sequence([_item(depth - 1, step)]))
    return item


def _private(dataset: Dataset) -> None:
    block = dataset.private_block(0x0009, TOKEN, create=True)
    for at, (vr, value) in enumerate(sorted(_VALUES.items())):
        block.add_new(at, "LO" if vr in ("DS", "IS") else vr, value)


def _put(dataset: Dataset, tag: int, vr: str, value: str | bytes) -> None:
    dataset.add_new(tag, vr, "" if vr in ("DS", "IS") else value)
    if vr in ("DS", "IS"):  # a number that is none
        dataset[tag]._value = value


def planted_file(
    folder: Path, *, name: str = f"{TOKEN}/{TOKEN}.dcm", packed: bool = False, **options: object
) -> Path:
    """Write a picture with everything planted: header, meta group, preamble, pixels, and behind the end.

    Parameters
    ----------
    folder : Path
        Where.
    name : str
        Path inside it.
    packed : bool
        JPEG, with comments and application segments in the stream.
    **options
        For :func:`tests.dicom.builders.write_instance`; ``step`` and ``depth`` for :func:`plant`.
    """
    depth, step = options.pop("depth", 4), options.pop("step", 1)
    tags = {
        "Modality": "CR",
        "ImageType": ["ORIGINAL", "PRIMARY", TOKEN],
        "PatientID": TOKEN,
        "BodyPartExamined": TOKEN,
    }
    tags |= {
        "AccessionNumber": TOKEN,
        "StudyDate": DATE,
        "PatientName": f"{TOKEN}^{TOKEN}",
        "ViewPosition": TOKEN,
    }
    options = {**tags, **options}
    if packed:
        options["pixels"] = np.zeros((16, 16, 3), np.uint8)
    path = write_instance(folder, name=name, edit=lambda d: plant(d, depth=depth, step=step), **options)
    with config.disable_value_validation():
        dataset = dcmread(path)
        meta = dataset.file_meta
        meta.SourceApplicationEntityTitle = meta.ImplementationVersionName = TOKEN
        meta.PrivateInformationCreatorUID, meta.PrivateInformation = UID, TOKEN.encode() * 2
        dataset.preamble = (TOKEN.encode() * 20)[:128]
        if packed:
            meta.TransferSyntaxUID = JPEGBaseline8Bit
            dataset.PhotometricInterpretation = "YBR_FULL_422"
            dataset.PixelData = encapsulate([_jpeg()], has_bot=False)
        elif meta.TransferSyntaxUID == ExplicitVRLittleEndian:
            dataset.PixelData += TOKEN.encode() * 2
        dataset.DataSetTrailingPadding = TOKEN.encode() * 2
        dataset.save_as(path)
    return path


def _jpeg() -> bytes:
    stream = BytesIO()
    Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(stream, "JPEG")
    plain = stream.getvalue()
    extras = b"".join(
        struct.pack(">HH", marker, len(TOKEN) + 2) + TOKEN.encode()
        for marker in (0xFFE1, 0xFFE2, 0xFFFE, 0xFFED)
    )
    return plain[:2] + extras + plain[2:] + TOKEN.encode()
