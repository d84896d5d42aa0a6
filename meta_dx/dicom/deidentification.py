"""The stored object: a new DICOM instance built from an allow-list, under surrogate identities.

Nothing is removed from the original, because a list of what to remove is never complete: a fresh file
receives the attributes named here, the pixel data as they were encoded, and nothing else. Private attributes,
overlays, free text and every date but the shifted study date stay behind. An attribute travels as the bytes
that the file had, when these are what its value representation allows: numbers, or a code of safe words
(:mod:`meta_dx.dicom.words`). All of it is permitted by the profile of PS3.15 (:mod:`meta_dx.dicom.profile`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from typing import Any

from pydicom.datadict import dictionary_keyword, dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels.utils import get_expected_length
from pydicom.sequence import Sequence

from meta_dx.dicom.encoding import Encoder
from meta_dx.dicom.extras import without_extras
from meta_dx.dicom.identity import Surrogates, clean
from meta_dx.dicom.pixels import PALETTE, frame_count, high_bit_of, planar_configuration_of
from meta_dx.dicom.profile import ProfileOptions, method_codes
from meta_dx.dicom.words import safe_values

#: Attributes that travel, wherever they stand: at the top or inside a sequence that travels.
KEPT_ATTRIBUTES = (
    # what it is
    "Modality ImageType FrameType PresentationIntentType PixelPresentation VolumetricProperties "
    "BodyPartExamined ViewPosition Laterality ImageLaterality FrameLaterality PatientPosition "
    "PatientOrientation BurnedInAnnotation InstanceNumber SeriesNumber AcquisitionNumber "
    # with what it was made
    "KVP ExposureTime XRayTubeCurrent Exposure ExposureInuAs RepetitionTime EchoTime InversionTime FlipAngle "
    "MagneticFieldStrength EchoNumbers EchoTrainLength ScanningSequence SequenceVariant MRAcquisitionType "
    "Units DecayCorrection RescaleType "
    # where it lies (LPS, mm)
    "FrameOfReferenceUID ImagePositionPatient ImageOrientationPatient SliceLocation SliceThickness "
    "SpacingBetweenSlices PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing PixelAspectRatio "
    "EstimatedRadiographicMagnificationFactor GantryDetectorTilt TemporalPositionIdentifier "
    "NumberOfTemporalPositions StackID InStackPositionNumber DimensionIndexValues DimensionIndexPointer "
    "FunctionalGroupPointer DimensionOrganizationUID TemporalPositionIndex FrameAcquisitionNumber "
    # how the pixels are meant; what decoding needs is written from checked numbers, see pixel_module
    "SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue PixelPaddingRangeLimit "
    "LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod "
    "RescaleSlope RescaleIntercept WindowCenter WindowWidth VOILUTFunction PresentationLUTShape "
    "LUTDescriptor LUTData ModalityLUTType PaletteColorLookupTableUID "
    "RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor "
    "BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData "
    "GreenPaletteColorLookupTableData BluePaletteColorLookupTableData "
    "SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData "
    "SegmentedBluePaletteColorLookupTableData"
).split()

#: Sequences that travel; inside them the two lists hold again.
KEPT_SEQUENCES = (
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelMeasuresSequence "
    "PlanePositionSequence PlaneOrientationSequence PixelValueTransformationSequence FrameVOILUTSequence "
    "FrameContentSequence FrameAnatomySequence CTImageFrameTypeSequence MRImageFrameTypeSequence "
    "XRay3DFrameTypeSequence DimensionOrganizationSequence DimensionIndexSequence ModalityLUTSequence "
    "VOILUTSequence"
).split()

# No number of the standard's UIDs is longer; what a scanner appends to its root by mistake is a time or a serial.
_STANDARD_UID = re.compile(r"1\.2\.840\.10008(\.[0-9]{1,4}){1,9}")
_DEEPEST = 6
_LONGEST_NUMBERS = 512  # bytes of a plain numeric attribute; look-up tables may be longer
_CODES = re.compile(rb"[A-Z0-9 _./\-]{0,32}(\\[A-Z0-9 _./\-]{0,32}){0,31}\0?")
DECIMALS = re.compile(rb"[0-9+\-.eE \\]*\0?")
_AGE = re.compile(r"\d{3}[DWMY]")
_CODED = frozenset({"CS", "SH", "LO"})
NUMBER_BYTES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4, "OB": 1, "OW": 2}


@dataclass(frozen=True)
class _Kept:
    tag: int
    allowed: tuple[str, ...]  # value representations that the dictionary gives the attribute
    table: bool  # a look-up table, which may be long


def _kept_attributes() -> dict[int, _Kept]:
    kept = {}
    for keyword in KEPT_ATTRIBUTES:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise ValueError(f"not in the DICOM dictionary: {keyword}")
        kept[int(tag)] = _Kept(int(tag), tuple(dictionary_VR(tag).split(" or ")), keyword.endswith("Data"))
    return kept


_ATTRIBUTES = _kept_attributes()
_SEQUENCES = frozenset(int(tag_for_keyword(keyword) or 0) for keyword in KEPT_SEQUENCES)
_TABLES = frozenset(tag for tag, kept in _ATTRIBUTES.items() if kept.table)
_PALETTES = frozenset(tag for tag in _TABLES if "Palette" in dictionary_keyword(tag))
_MODALITY = 0x00080060
_METHOD_CODES = 0x00120064
# Longitudinal dates modified, age and sex retained; no descriptions.
_METHODS = method_codes(ProfileOptions(descriptors=False))
_PIXEL_DATA = 0x7FE00010
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002)


@dataclass(frozen=True)
class Identity:
    """What the stored object says about its origin.

    Parameters
    ----------
    study, series, instance : str
        Surrogate UIDs.
    patient : str
        Surrogate of the patient.
    accession : str, optional
        Surrogate of the accession number.
    sop_class : str
        SOP class UID.
    sex : str, optional
        ``M``, ``F`` or ``O``.
    age : str, optional
        In DICOM's form (``"054Y"``).
    study_date : date, optional
        Shifted already.
    manufacturer, model : str, optional
        Of the device.
    """

    study: str
    series: str
    instance: str
    patient: str
    accession: str | None
    sop_class: str
    sex: str | None
    age: str | None
    study_date: date | None
    manufacturer: str | None
    model: str | None


def deidentified_object(
    original: Dataset, raw: Mapping[int, Any], identity: Identity, surrogates: Surrogates
) -> bytes:
    """Build the object that the home keeps.

    Parameters
    ----------
    original : pydicom.dataset.Dataset
        The instance, checked by :func:`meta_dx.dicom.header.require_picture`, its transfer syntax in
        ``file_meta``.
    raw : mapping of tag to element
        Its elements as they were before any was parsed (:func:`raw_elements`).
    identity : Identity
        The surrogates to write.
    surrogates : Surrogates
        For the other UIDs, such as the frame of reference.

    Returns
    -------
    bytes
        A complete DICOM file. Transfer syntax and encoded pixel data are those of the original, bit for bit.
    """
    encoder = Encoder(str(original.file_meta.TransferSyntaxUID))
    elements = _kept(original, raw, surrogates, encoder, depth=0)
    for tag in meaningless_tables(original):
        elements.pop(tag, None)
    elements.setdefault(_MODALITY, encoder.text(_MODALITY, "CS", "OT"))  # the code was not one of safe words
    elements |= _identity_module(identity, encoder)
    elements[_METHOD_CODES] = _methods(encoder.transfer_syntax)
    elements |= pixel_module(original, encoder)
    elements |= pixel_elements(original, raw, encoder)
    return encoder.file(identity.sop_class, identity.instance, elements)


def raw_elements(dataset: Dataset) -> dict[int, Any]:
    """Return the elements of a data set as they are now, parsed or not, by tag."""
    return {int(tag): dataset.get_item(tag) for tag in dataset.keys()}


def method_sequence(encoder: Encoder, codes: Iterable[tuple[str, str]]) -> bytes:
    """Return DeidentificationMethodCodeSequence with these codes of DCM (value, meaning)."""
    items = [
        {
            0x00080100: encoder.text(0x00080100, "SH", value),
            0x00080102: encoder.text(0x00080102, "SH", "DCM"),
            0x00080104: encoder.text(0x00080104, "LO", meaning),
        }
        for value, meaning in codes
    ]
    return encoder.sequence(_METHOD_CODES, items)


@lru_cache(16)
def _methods(transfer_syntax: str) -> bytes:
    return method_sequence(Encoder(transfer_syntax), _METHODS)


def uid_surrogate(value: str, surrogates: Surrogates) -> str:
    """Return a UID of the standard (SOP classes, transfer syntaxes) as it is, any other as its surrogate."""
    uid = clean(value)
    return uid if _STANDARD_UID.fullmatch(uid) else surrogates.uid(uid)


def device_text(value: Any) -> str | None:
    """Return the name of a maker or model on one line, at most 64 characters; ``None`` if there is none."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value or "")).split())
    return text[:64] or None


def age_string(value: Any) -> str | None:
    """Return an age in DICOM's form, or ``None`` where the text is none."""
    text = clean(str(value or "")).upper()
    return text if _AGE.fullmatch(text) else None


def _kept(
    original: Dataset, raw: Mapping[int, Any], surrogates: Surrogates, encoder: Encoder, depth: int
) -> dict[int, bytes]:
    elements = {}
    for tag, element in raw.items():
        if tag in _ATTRIBUTES:
            encoded = _attribute(_ATTRIBUTES[tag], element, surrogates, encoder)
            if encoded is not None:
                elements[tag] = encoded
        elif tag in _SEQUENCES and depth < _DEEPEST:
            value = original[tag].value
            if isinstance(value, Sequence):
                items = (_kept(item, raw_elements(item), surrogates, encoder, depth + 1) for item in value)
                elements[tag] = encoder.sequence(tag, items)
    return elements


def _attribute(
    kept: _Kept, element: RawDataElement | DataElement, surrogates: Surrogates, encoder: Encoder
) -> bytes | None:
    value = element.value
    if not isinstance(element, RawDataElement) or not isinstance(value, bytes) or not value:
        return None
    # Implicit files name no representation, and "UN" says that some archive did not know it.
    vr = element.VR if element.VR not in (None, "UN") else kept.allowed[0]
    if vr not in kept.allowed:
        return None
    if vr == "UI":
        uids = [uid_surrogate(uid, surrogates) for uid in value.decode("ascii", "replace").split("\\")]
        return encoder.text(kept.tag, vr, "\\".join(uids))
    if vr in _CODED:
        value = safe_codes(value)
    return (
        encoder.element(kept.tag, vr, value)
        if value and _well_formed(kept.tag, vr, value, kept.table)
        else None
    )


def safe_codes(value: bytes, unsafe: bytes = b"") -> bytes:
    """Return the codes of an attribute; one that holds another word than safe ones is replaced."""
    if _CODES.fullmatch(value) is None:
        return b""
    codes = value.split(b"\\")
    safe = safe_values([code.decode("ascii") for code in codes])
    if all(safe):
        return value
    kept = (code if good else unsafe for code, good in zip(codes, safe, strict=True))
    return b"\\".join(kept).rstrip(b"\\")


def _well_formed(tag: int, vr: str, value: bytes, table: bool) -> bool:
    if vr in _CODED:
        return True  # safe_codes has seen to it
    if vr in {"DS", "IS"}:
        return len(value) <= _LONGEST_NUMBERS and DECIMALS.fullmatch(value) is not None
    size = NUMBER_BYTES.get(vr)
    return size is not None and len(value) % size == 0 and (table or len(value) <= longest_numbers(tag, size))


@cache
def longest_numbers(tag: int, size: int) -> int:
    """Return how many bytes the numbers of an attribute may have: as many as its multiplicity says."""
    most = dictionary_VM(tag).split("-")[-1].split(" ")[0]
    return int(most) * size if most.isdigit() else _LONGEST_NUMBERS


def meaningless_tables(original: Dataset) -> frozenset[int]:
    """Return the look-up tables at the top of an object that nothing applies: their bytes could be anything."""
    photometric = clean(str(original.get("PhotometricInterpretation") or "")).upper()
    palette = photometric == PALETTE or original.get("PixelPresentation") in ("COLOR", "MIXED")
    return _TABLES - _PALETTES if palette else _TABLES


def _identity_module(identity: Identity, encoder: Encoder) -> dict[int, bytes]:
    day = identity.study_date.strftime("%Y%m%d") if identity.study_date else ""
    texts = {
        0x00080005: ("CS", "ISO_IR 192"),
        0x00080016: ("UI", identity.sop_class),
        0x00080018: ("UI", identity.instance),
        0x00080020: ("DA", day),
        0x00080030: ("TM", ""),
        0x00080050: ("SH", identity.accession or ""),
        0x00080070: ("LO", identity.manufacturer or ""),
        0x00080090: ("PN", ""),
        0x00081090: ("LO", identity.model or ""),
        0x00100010: ("PN", ""),
        0x00100020: ("LO", identity.patient),
        0x00100030: ("DA", ""),
        0x00100040: ("CS", identity.sex or ""),
        0x00101010: ("AS", identity.age or ""),
        0x00120062: ("CS", "YES"),
        0x00120063: ("LO", "meta_dx: allow-list, keyed surrogates"),
        0x0020000D: ("UI", identity.study),
        0x0020000E: ("UI", identity.series),
        0x00200010: ("SH", ""),
        0x00280303: ("CS", "MODIFIED" if day else "REMOVED"),
    }
    return {tag: encoder.text(tag, vr, value) for tag, (vr, value) in texts.items()}


def pixel_module(original: Dataset, encoder: Encoder) -> dict[int, bytes]:
    """Write what a decoder needs from the numbers that were checked, whatever form the file had them in."""
    numbers = {
        0x00280002: int(original.SamplesPerPixel),
        0x00280010: int(original.Rows),
        0x00280011: int(original.Columns),
        0x00280100: int(original.BitsAllocated),
        0x00280101: int(original.BitsStored),
        0x00280102: high_bit_of(original),
        0x00280103: int(original.PixelRepresentation),
    }
    if numbers[0x00280002] > 1:
        numbers[0x00280006] = planar_configuration_of(original)
    elements = {tag: encoder.short(tag, number) for tag, number in numbers.items()}
    photometric = clean(str(original.PhotometricInterpretation)).upper()
    elements[0x00280004] = encoder.text(0x00280004, "CS", photometric)
    if original.get("NumberOfFrames"):
        elements[0x00280008] = encoder.text(0x00280008, "IS", str(int(original.NumberOfFrames)))
    return elements


def pixel_elements(original: Dataset, raw: Mapping[int, Any], encoder: Encoder) -> dict[int, bytes]:
    """Return the encoded pixel data without anything in them that is not the picture."""
    element = raw[_PIXEL_DATA]
    if encoder.encapsulated:
        offsets, lengths = (raw[tag].value if tag in raw else b"" for tag in _OFFSET_TABLES)
        value = without_extras(
            element.value,
            str(original.file_meta.TransferSyntaxUID),
            frame_count(original),
            int(original.Rows) * int(original.Columns),
            (offsets, lengths) if offsets and lengths else None,
        )
        return {_PIXEL_DATA: encoder.encapsulated_pixels(value)}
    vr = element.VR if element.VR in {"OB", "OW"} else "OW"
    # What follows the last pixel is no picture.
    length = get_expected_length(original)
    return {_PIXEL_DATA: encoder.element(_PIXEL_DATA, vr, element.value[: length + length % 2])}
