"""The Basic Application Level Confidentiality Profile of PS3.15, Annex E, with the options that a study needs.

The table (E.1-1) is the one that the package dicom-anonymizer keeps; this module reads it, resolves its
combined actions, and adds what the options retain. Nothing here touches a data set:
:mod:`meta_dx.dicom.profiled` applies it.

A combined action such as X/Z/D depends on the type of the attribute in its IOD, which nobody can know for a
private or damaged object. So the action is taken that keeps the object valid in every IOD: D where D is among
them (the dummy says nothing), else Z; X only where the table gives X alone. X/Z/U* is U.

Where the table is silent, the standard keeps. We keep less: see :func:`action_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR, tag_for_keyword

TABLE = "dicomfields_2026c"  # of dicom-anonymizer; holds everything that 2024b holds, and more


class Action(StrEnum):
    """What becomes of an attribute; the letters of PS3.15."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"
    CLEAN = "C"
    KEEP = "K"
    SHIFT = "C shifted"  # a date, moved by the days of its patient


@dataclass(frozen=True)
class ProfileOptions:
    """What is retained beyond the basic profile.

    UIDs are never retained: keyed surrogates stand in their place. Neither are serial numbers, station and
    institution names, private attributes, overlays, graphics or structured content.

    Parameters
    ----------
    age_and_sex : bool
        Patient characteristics: PatientAge and PatientSex, and no other.
    dates : bool
        Longitudinal dates, moved by 1 to 365 days into the past, the same for everything of one patient.
        Without it dates are dummies. Dates of the patient module (birth) are never retained.
    times : bool
        Times of day beside the dates. Without it they are emptied, and date-times end with their day.
    device : bool
        Manufacturer and ManufacturerModelName, which the basic profile does not protect.
    descriptors : bool
        Descriptions of study, series, protocol and procedure, where every word of them is a safe one
        (:mod:`meta_dx.dicom.words`).
    """

    age_and_sex: bool = True
    dates: bool = True
    times: bool = False
    device: bool = True
    descriptors: bool = True


#: Descriptions that the option ``descriptors`` keeps when their words are safe (PS3.15 marks them C).
DESCRIPTORS = (
    "StudyDescription SeriesDescription ProtocolName PerformedProcedureStepDescription "
    "RequestedProcedureDescription AcquisitionProtocolDescription ContrastBolusAgent DerivationDescription "
    "AcquisitionDeviceProcessingDescription"
).split()
#: Structured content and graphics: gone, whatever the table would put in their place.
_CONTENT = (
    "ContentSequence GraphicAnnotationSequence GraphicLayerSequence TextObjectSequence GraphicObjectSequence "
    "EncapsulatedDocument OriginalAttributesSequence ReferencedStudySequence"
).split()  # the last because it may be absent, but not empty
_DEVICE = ("Manufacturer", "ManufacturerModelName")
_PATIENT_GROUP = 0x0010
_CURVES_AND_OVERLAYS = (0x5000, 0x6000)
_TEMPORAL = frozenset({"DA", "DT", "TM"})
_FREE_TEXT = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
_NAMES = frozenset({"AE", "PN", "UR"})  # who or where, whatever the attribute
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
#: Binary attributes that hold samples or look-up tables and so no text.
_SAMPLES = (
    "PixelData ExtendedOffsetTable ExtendedOffsetTableLengths LUTData RedPaletteColorLookupTableData "
    "GreenPaletteColorLookupTableData BluePaletteColorLookupTableData "
    "SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData "
    "SegmentedBluePaletteColorLookupTableData"
).split()
_ICC_PROFILE = ("ICCProfile",)  # kept without its texts


def _tags(keywords: tuple[str, ...] | list[str]) -> frozenset[int]:
    return frozenset(int(tag_for_keyword(keyword) or 0) for keyword in keywords)


_DESCRIPTOR_TAGS, _CONTENT_TAGS, _DEVICE_TAGS = _tags(DESCRIPTORS), _tags(_CONTENT), _tags(_DEVICE)
_SAMPLE_TAGS = _tags(_SAMPLES)
_ICC_TAGS = _tags(_ICC_PROFILE)
_AGE_AND_SEX = _tags(("PatientAge", "PatientSex"))


def action_of(tag: int, options: ProfileOptions) -> Action:
    """Return what becomes of an attribute, at whatever depth it stands.

    Parameters
    ----------
    tag : int
        Group and element.
    options : ProfileOptions
        What is retained.

    Returns
    -------
    Action
        ``CLEAN`` means: word by word for text, item by item for a sequence. Stricter than the table: what the
        dictionary does not know, private attributes, group lengths, all of an overlay or curve group, what
        else is in the patient's group, binary values that are no samples, and names, titles and addresses
        (AE, PN, UR) do not stay although the table does not name them; text that it does not name is cleaned,
        dates and times are treated like those that it names, and UIDs are replaced.
    """
    group, element = tag >> 16, tag & 0xFFFF
    if group % 2 or element == 0 or group & 0xFF00 in _CURVES_AND_OVERLAYS or tag in _CONTENT_TAGS:
        return Action.REMOVE
    if not dictionary_has_tag(tag):
        return Action.REMOVE
    vr = dictionary_VR(tag).split(" or ")[0]
    listed = table().get(tag)
    retained = _retained(tag, vr, listed, options)
    if retained is not None:
        return retained
    if vr == "UI" and listed is Action.DUMMY:
        return Action.UID  # a surrogate is the best of dummies
    if listed is None and group == _PATIENT_GROUP:
        return Action.REMOVE  # weight and size go by the table; the body mass index would bring them back
    return listed or _unlisted(tag, vr)


def _retained(tag: int, vr: str, listed: Action | None, options: ProfileOptions) -> Action | None:
    if tag in _AGE_AND_SEX and options.age_and_sex:
        return Action.KEEP
    if tag in _DESCRIPTOR_TAGS:
        return Action.CLEAN if options.descriptors else listed or Action.DUMMY
    if tag in _DEVICE_TAGS:
        return Action.KEEP if options.device else Action.EMPTY
    if vr not in _TEMPORAL or tag >> 16 == _PATIENT_GROUP:
        return None
    if vr == "TM":
        return Action.KEEP if options.dates and options.times else None
    return Action.SHIFT if options.dates else None


def _unlisted(tag: int, vr: str) -> Action:
    if vr == "UI":
        return Action.UID
    if tag in _ICC_TAGS:
        return Action.CLEAN
    if not _BINARY.isdisjoint(dictionary_VR(tag).split(" or ")) and tag not in _SAMPLE_TAGS:
        return Action.REMOVE
    if vr in _TEMPORAL or vr in _NAMES:
        return Action.EMPTY
    if vr in _FREE_TEXT or vr in {"CS", "SQ"}:
        return Action.CLEAN
    return Action.KEEP


@cache
def table() -> dict[int, Action]:
    """Return the actions of PS3.15, Table E.1-1 by tag, combined ones resolved; repeating groups are left out.

    Notes
    -----
    dicom-anonymizer calls nothing stable. Used is its one selector, whose argument its documentation names; the
    version is pinned, and a test compares the table with the attributes that any version must remove.
    """
    from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector

    categories = dicom_anonymization_database_selector(TABLE)
    return {
        (tag[0] << 16) | tag[1]: action
        for category, action in _CATEGORIES.items()
        for tag in categories[category]
        if len(tag) == 2  # repeating groups have masks, and go as a whole
    }


_CATEGORIES = {
    "X_TAGS": Action.REMOVE,
    "Z_TAGS": Action.EMPTY,
    "X_Z_TAGS": Action.EMPTY,
    "D_TAGS": Action.DUMMY,
    "Z_D_TAGS": Action.DUMMY,
    "X_D_TAGS": Action.DUMMY,
    "X_Z_D_TAGS": Action.DUMMY,
    "U_TAGS": Action.UID,
    "X_Z_U_STAR_TAGS": Action.UID,
}


def method_codes(options: ProfileOptions) -> tuple[tuple[str, str], ...]:
    """Return what was done in codes of CID 7050 (DCM): value and meaning.

    The device option has no code: maker and model are no part of what the basic profile protects, and to claim
    113109 would say that serial numbers were retained too.
    """
    codes = [("113100", "Basic Application Confidentiality Profile")]
    if options.descriptors:
        codes.append(("113105", "Clean Descriptors Option"))
    if options.dates:
        codes.append(("113107", "Retain Longitudinal Temporal Information Modified Dates Option"))
    if options.age_and_sex:
        codes.append(("113108", "Retain Patient Characteristics Option"))
    return tuple(codes)


def keyword_of(tag: int) -> str:
    """Return the keyword of an attribute for messages."""
    return dictionary_keyword(tag) if dictionary_has_tag(tag) else f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
