"""DICOM JSON, as far as it is needed: the values of a match of QIDO-RS as text, and what tells it apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meta_dx.home import fingerprint_of


@dataclass(frozen=True)
class Entry:
    """One match: its UID as a key, and its values by keyword."""

    content: dict[str, Any]
    key: str

    def value(self, keyword: str) -> str:
        """Return a value as text, several joined as DICOM does, empty where there is none or nonsense."""
        element = self.content.get(TAGS[keyword])
        values = element.get("Value") if isinstance(element, dict) else None
        if not isinstance(values, list):
            return ""
        return "\\".join(str(value) for value in values if isinstance(value, str | int | float))[:1024]


TAGS = {
    "StudyInstanceUID": "0020000D",
    "SeriesInstanceUID": "0020000E",
    "SOPInstanceUID": "00080018",
    "SOPClassUID": "00080016",
    "PatientID": "00100020",
    "IssuerOfPatientID": "00100021",
    "StudyDate": "00080020",
    "StudyDescription": "00081030",
    "AccessionNumber": "00080050",
    "NumberOfStudyRelatedSeries": "00201206",
    "NumberOfStudyRelatedInstances": "00201208",
    "NumberOfSeriesRelatedInstances": "00201209",
    "Modality": "00080060",
    "BodyPartExamined": "00180015",
    "InstanceNumber": "00200013",
    "NumberOfFrames": "00280008",
    "Rows": "00280010",
    "Columns": "00280011",
    "BitsAllocated": "00280100",
    "InstanceCreationDate": "00080012",
    "InstanceCreationTime": "00080013",
    "ContentDate": "00080023",
    "ContentTime": "00080033",
}


def key_of(entry: dict[str, Any]) -> str:
    """Return what tells two matches apart, whatever the server put there."""
    for tag in ("00080018", "0020000E", "0020000D"):  # the deepest level that the entry has
        element = entry.get(tag)
        if isinstance(element, dict) and element.get("Value"):
            return f"{tag} {fingerprint_of(element['Value'])}"
    return fingerprint_of(entry)
