"""One whole object, de-identified by the profile of PS3.15: what leaves the house as a DICOM file.

Where :mod:`meta_dx.dicom.deidentification` keeps a short list for ourselves, this keeps everything that the
profile permits, so that other programs find what they expect. Whoever reads with
:attr:`meta_dx.dicom.reading.ReadLimits.profile` gets this object, from the same checks and in the same sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from meta_dx.dicom.deidentification import (
    DECIMALS,
    NUMBER_BYTES,
    age_string,
    device_text,
    longest_numbers,
    meaningless_tables,
    method_sequence,
    pixel_elements,
    pixel_module,
    raw_elements,
    safe_codes,
    uid_surrogate,
)
from meta_dx.dicom.encoding import Encoder
from meta_dx.dicom.header import text
from meta_dx.dicom.icc import without_texts
from meta_dx.dicom.identity import Surrogates, clean
from meta_dx.dicom.profile import Action, ProfileOptions, action_of, method_codes, table
from meta_dx.dicom.words import CODING_SCHEMES, code_value, is_safe

_DEEPEST = 16
_REMOVED = "REMOVED"
_DUMMIES = {
    "AS": "000Y",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101",
    "IS": "0",
    "TM": "000000",
    "UR": "http://removed.invalid",
}
_NUMBERS = {**NUMBER_BYTES, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "SV": 8, "UV": 8}
_TIME = re.compile(rb"[0-9.: \\]*\0?")
_DAY = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_FREE_TEXT = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
_SAMPLES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
_CHARACTER_SET, _SEX = 0x00080005, 0x00100040
_PIXEL_GROUP = 0x7FE0
_CODE_VALUE, _SCHEME, _SCHEME_VERSION, _CONTEXT = 0x00080100, 0x00080102, 0x00080103, 0x0008010F
_METHOD = r"meta_dx: PS3.15 Annex E, keyed surrogates"


def profiled_object(
    original: Dataset,
    raw: Mapping[int, Any],
    patient: str,
    surrogates: Surrogates,
    options: ProfileOptions,
) -> bytes:
    """De-identify one whole object by the profile.

    Parameters
    ----------
    original : pydicom.dataset.Dataset
        The instance, checked by :func:`meta_dx.dicom.header.require_picture`, its transfer syntax in
        ``file_meta``.
    raw : mapping of tag to element
        Its elements as they were before any was parsed
        (:func:`meta_dx.dicom.deidentification.raw_elements`).
    patient : str
        Surrogate of the patient, by which dates are moved.
    surrogates : Surrogates
        Under the key of the home, surrogates are those of its catalog.
    options : ProfileOptions
        What is retained.

    Returns
    -------
    bytes
        A complete DICOM file. Transfer syntax and the picture in the encoded pixel data are those of the
        original, bit for bit.
    """
    encoder = Encoder(str(original.file_meta.TransferSyntaxUID))
    profiled = _Profiled(surrogates, options, encoder, patient)
    elements = profiled.elements(original, raw, depth=0)
    for tag in meaningless_tables(original):
        elements.pop(tag, None)
    elements |= profiled.identity(original)
    elements |= pixel_module(original, encoder)
    elements |= pixel_elements(original, raw, encoder)
    sop_class = uid_surrogate(text(original, "SOPClassUID"), surrogates)
    return encoder.file(sop_class, surrogates.uid(text(original, "SOPInstanceUID")), elements)


class _Profiled:
    """Applies the profile to the elements of one object, element by element, as bytes."""

    def __init__(
        self, surrogates: Surrogates, options: ProfileOptions, encoder: Encoder, patient: str
    ) -> None:
        self._surrogates = surrogates
        self._options = options
        self._encoder = encoder
        self._patient = patient

    def elements(self, dataset: Dataset, raw: Mapping[int, Any], depth: int) -> dict[int, bytes]:
        """Return the encoded elements that stay, by tag; pixels are not among them."""
        kept = {}
        for tag, element in raw.items():
            if tag == _CHARACTER_SET or tag >> 16 == _PIXEL_GROUP:
                continue
            action = action_of(tag, self._options)
            if action is Action.REMOVE:
                continue
            encoded = self._element(dataset, tag, element, action, depth)
            if encoded is not None:
                kept[tag] = encoded
        return kept

    def identity(self, dataset: Dataset) -> dict[int, bytes]:
        """Return the surrogates, and what the standard wants to be said about the de-identification."""
        encoder, dates = self._encoder, self._options.dates
        number = text(dataset, "AccessionNumber")
        texts = {
            0x00080005: ("CS", "ISO_IR 192"),
            0x00080050: ("SH", self._surrogates.accession(number) if number else ""),
            0x00100020: ("LO", self._patient),
            0x00120062: ("CS", "YES"),
            0x00120063: ("LO", _METHOD),
            0x00280303: ("CS", "MODIFIED" if dates else "REMOVED"),
        }
        elements = {tag: encoder.text(tag, vr, value) for tag, (vr, value) in texts.items()}
        elements[0x00120064] = method_sequence(encoder, method_codes(self._options))
        return elements

    def _element(self, dataset: Dataset, tag: int, element: Any, action: Action, depth: int) -> bytes | None:
        allowed = tuple(dictionary_VR(tag).split(" or "))
        vr = element.VR if element.VR not in (None, "UN") else allowed[0]
        if vr not in allowed:
            vr, action = allowed[0], Action.DUMMY if action in (Action.EMPTY, Action.DUMMY) else Action.REMOVE
        if action is Action.REMOVE:
            return None
        if vr == "SQ":
            return self._sequence(dataset, tag, action, depth)
        if action is Action.EMPTY or not element.value:
            return self._encoder.text(tag, vr, "")
        if action is Action.DUMMY:
            return self._dummy(tag, vr)
        return self._value(dataset, tag, vr, element, action)

    def _value(self, dataset: Dataset, tag: int, vr: str, element: Any, action: Action) -> bytes | None:
        value = element.value if isinstance(element, RawDataElement) else None
        if vr == "UI":
            found = self._texts(dataset, tag)
            return self._encoder.text(
                tag, vr, "\\".join(uid_surrogate(uid, self._surrogates) for uid in found)
            )
        if action is Action.SHIFT:
            shifted = "\\".join(self._shifted(day, vr) for day in self._texts(dataset, tag))
            return self._encoder.text(tag, vr, shifted)
        if vr in _FREE_TEXT:
            return self._free_text(dataset, tag, vr, action)
        if not isinstance(value, bytes):
            return None
        if action is Action.CLEAN and vr == "OB":
            profile = without_texts(value)
            return self._encoder.element(tag, vr, profile) if profile else None
        return self._checked(tag, vr, value)

    def _checked(self, tag: int, vr: str, value: bytes) -> bytes | None:
        """Return a value that is what its representation promises; text in the place of numbers goes."""
        if vr == "CS":
            return self._code(tag, value)
        if vr == "AS":
            age = age_string(value.decode("ascii", "replace"))
            return self._encoder.text(tag, vr, age) if age else None
        shape = {"DS": DECIMALS, "IS": DECIMALS, "TM": _TIME}.get(vr)
        if shape is not None:
            return self._encoder.element(tag, vr, value) if shape.fullmatch(value) else None
        size = _NUMBERS.get(vr)
        if (
            size is None
            or len(value) % size
            or (vr not in _SAMPLES and len(value) > longest_numbers(tag, size))
        ):
            return None
        return self._encoder.element(tag, vr, value)

    def _code(self, tag: int, value: bytes) -> bytes:
        if tag == _SEX:
            sex = clean(value.decode("ascii", "replace"))[:1].upper()
            return self._encoder.text(tag, "CS", sex if sex in ("M", "F", "O") else "")
        if tag == _CONTEXT and re.fullmatch(rb"[0-9]{1,5} ?", value):
            return self._encoder.element(tag, "CS", value)
        codes = safe_codes(value, unsafe=_REMOVED.encode())
        return self._encoder.element(tag, "CS", codes or _REMOVED.encode())

    def _free_text(self, dataset: Dataset, tag: int, vr: str, action: Action) -> bytes | None:
        found = "\\".join(self._texts(dataset, tag))
        if action is Action.KEEP:  # maker and model
            return self._encoder.text(tag, vr, device_text(found) or "")
        if tag == _CODE_VALUE:
            code = code_value(text(dataset, "CodingSchemeDesignator"), found)
            return self._encoder.text(tag, vr, code or _REMOVED)
        if tag == _SCHEME_VERSION:
            return None
        if is_safe(found) or (tag == _SCHEME and found in CODING_SCHEMES):
            return self._encoder.text(tag, vr, found)
        listed = table().get(tag, Action.DUMMY)
        if listed is Action.REMOVE:
            return None
        return self._encoder.text(tag, vr, "" if listed is Action.EMPTY else _REMOVED)

    def _sequence(self, dataset: Dataset, tag: int, action: Action, depth: int) -> bytes | None:
        value = dataset[tag].value
        if depth >= _DEEPEST or not isinstance(value, Sequence):
            return None
        if action is Action.EMPTY:
            return self._encoder.sequence(tag, ())
        inside: Callable[[Dataset], dict[int, bytes]] = (
            self._dummies
            if action is Action.DUMMY
            else lambda item: self.elements(item, raw_elements(item), depth + 1)
        )
        return self._encoder.sequence(tag, [inside(item) for item in value])

    def _dummies(self, item: Dataset) -> dict[int, bytes]:
        """Return an item with the attributes that it had and a dummy in each; sequences in it are left out."""
        kept = {}
        for tag in raw_elements(item):
            if action_of(tag, self._options) is not Action.REMOVE and tag != _CHARACTER_SET:
                vr = dictionary_VR(tag).split(" or ")[0]
                if vr != "SQ":
                    kept[tag] = self._dummy(tag, vr)
        return kept

    def _dummy(self, tag: int, vr: str) -> bytes:
        if vr == "PN" or (vr not in _DUMMIES and vr not in _NUMBERS and vr != "UI"):
            return self._encoder.text(tag, vr, _REMOVED)
        if vr == "UI":
            return self._encoder.text(tag, vr, self._surrogates.uid(""))
        if vr in _NUMBERS:
            return self._encoder.element(tag, vr, bytes(max(2, _NUMBERS[vr])))
        return self._encoder.text(tag, vr, _DUMMIES[vr])

    def _shifted(self, value: str, vr: str) -> str:
        found = _DAY.match(value)
        try:
            day = date(*(int(part) for part in found.groups())) if found else None
        except ValueError:
            day = None
        moved = self._surrogates.shift(day, self._patient) if day else None
        if moved is None or found is None:
            return ""
        rest = value[found.end() :] if vr == "DT" and self._options.times else ""
        return f"{moved:%Y%m%d}{rest if re.fullmatch(r'[0-9.+-]*', rest) else ''}"

    @staticmethod
    def _texts(dataset: Dataset, tag: int) -> list[str]:
        value = dataset[tag].value
        parts: Iterable[Any] = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
        return [clean(str(part)) for part in parts]
