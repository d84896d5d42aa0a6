"""Pictures that may show whose they are: not taken in unless the cohort allows their kind.

No header can be cleaned so well that a name burned into the pixels goes away. Three kinds of objects usually
carry one: secondary captures (screenshots, scanned paper, digitised film), ultrasound, and whatever says so of
itself. They stay where they lie, with a code of their own, until ``[ingest] allow`` names the kind.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID

from meta_dx.dicom.header import text
from meta_dx.dicom.rejections import RefusedError, RejectionCode

#: What ``[ingest] allow`` may name.
QUARANTINED = (
    RejectionCode.BURNED_IN_ANNOTATION,
    RejectionCode.RECOGNIZABLE_FEATURES,
    RejectionCode.SECONDARY_CAPTURE,
    RejectionCode.ULTRASOUND,
)

#: ImplementationClassUID of ``from-images`` and of ``phantom``: what they write was chosen picture by picture by
#: whoever takes it in, or shows nobody.
OWN_PICTURES = UID("2.25.118940382075064463121087442790185217346")
OWN_DRAWINGS = UID("2.25.250811204512217346203955417420198812307")

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_ULTRASOUND = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("3", "3.1", "6", "6.1", "6.2")
)  # pictures, loops and volumes; 3 and 6 are retired
_ULTRASOUND_MODALITIES = frozenset({"US", "IVUS", "BDUS"})
# What scanners write into ImageType of an ordinary CT or MR object that is a picture of their screen, letters alone:
# SCREEN SAVE, SCREEN_CAPTURE, SECONDARY CAPTURE, DOSE_INFO, CT_SOM5 PROT (Siemens' patient protocol). A picture of
# SCREENING is none, and PROTON is a weighting.
_SCREENS = re.compile(
    r"SCREEN($|SAVE|SHOT|CAP|GRAB|DUMP|COPY|PRINT|IMAGE)|PRINTSCREEN|CAPTURE|DOSE(INFO|REPORT)|PROT($|OCOL)"
)
_NO_LETTERS = re.compile("[^A-Z]+")


def require_allowed(dataset: Dataset, allow: Collection[str]) -> None:
    """Refuse a picture that may show whose it is.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        The instance.
    allow : collection of str
        Codes of :data:`QUARANTINED` that are taken all the same. An instance of two kinds needs both.

    Raises
    ------
    RefusedError
        ``burned_in_annotation``, ``recognizable_features``, ``secondary_capture`` or ``ultrasound``.
    """
    for code in QUARANTINED:
        if code not in allow and _is(dataset, code):
            raise RefusedError(code)


def _is(dataset: Dataset, code: RejectionCode) -> bool:
    if code is RejectionCode.BURNED_IN_ANNOTATION:
        return _says_yes(dataset, "BurnedInAnnotation")
    if code is RejectionCode.RECOGNIZABLE_FEATURES:
        return _says_yes(dataset, "RecognizableVisualFeatures")
    if _is_our_own(dataset):
        return False
    if code is RejectionCode.SECONDARY_CAPTURE:
        return _is_secondary_capture(dataset)
    modality = text(dataset, "Modality").upper()
    return text(dataset, "SOPClassUID") in _ULTRASOUND or modality in _ULTRASOUND_MODALITIES


def _says_yes(dataset: Dataset, keyword: str) -> bool:
    # To ask the keys first is ten times as fast, and nearly every file has neither attribute.
    if tag_for_keyword(keyword) not in dataset.keys():
        return False
    # YES is the only right spelling; writers of truth values put TRUE or 1.
    values = text(dataset, keyword).upper().split("\\")
    return any(value.strip().startswith(("Y", "T", "1")) for value in values)


def _is_our_own(dataset: Dataset) -> bool:
    meta = getattr(dataset, "file_meta", None)
    return meta is not None and text(meta, "ImplementationClassUID") in (OWN_PICTURES, OWN_DRAWINGS)


def _is_secondary_capture(dataset: Dataset) -> bool:
    kind = text(dataset, "SOPClassUID")
    family = kind == _SECONDARY_CAPTURE or kind.startswith(f"{_SECONDARY_CAPTURE}.")
    kinds = (_NO_LETTERS.sub("", part) for part in text(dataset, "ImageType").upper().split("\\"))
    return family or bool(text(dataset, "ConversionType")) or any(map(_SCREENS.search, kinds))
