"""How DICOM and FHIR call a coding scheme, whatever a table or a reader calls it."""

from __future__ import annotations

from urllib.parse import quote

# Ours: of codes that no standard has, and of those of which nobody has said of which scheme they are.
SCHEME = "99METADX"

# Designator of DICOM (PS3.16, chapter 8; empty where there is none), URI that FHIR registers, and other names that
# tables of diagnoses use: letters and digits, in lower case.
_SCHEMES = (
    ("SCT", "http://snomed.info/sct", ("snomedct", "snomed", "snomedctsct")),
    ("SRT", "http://snomed.info/srt", ("snm3", "99sdm")),
    ("I10", "http://hl7.org/fhir/sid/icd-10", ("icd10", "icd10who")),
    ("I10C", "http://hl7.org/fhir/sid/icd-10-cm", ("icd10cm",)),
    ("I10P", "http://www.cms.gov/Medicare/Coding/ICD10", ("icd10pcs",)),
    ("", "http://fhir.de/CodeSystem/bfarm/icd-10-gm", ("icd10gm",)),
    ("I9", "http://hl7.org/fhir/sid/icd-9", ("icd9",)),
    ("I9C", "http://hl7.org/fhir/sid/icd-9-cm", ("i9cdx", "icd9cm")),
    ("I11", "http://id.who.int/icd/release/11/mms", ("icd11",)),
    ("ICDO3", "http://terminology.hl7.org/CodeSystem/icd-o-3", ()),
    ("RADLEX", "http://radlex.org", ("rid",)),
    ("LN", "http://loinc.org", ("loinc",)),
    ("DCM", "http://dicom.nema.org/resources/ontology/DCM", ()),
    ("UMLS", "http://terminology.hl7.org/CodeSystem/umls", ()),
    ("UCUM", "http://unitsofmeasure.org", ()),
)
_KNOWN = {
    name: (designator, uri)
    for designator, uri, others in _SCHEMES
    for name in (designator.lower(), *others)
    if name
}


# No control characters, though they cannot be seen: Persian, Indic scripts and emoji are spelt with them.
_JOINERS = "\u200c\u200d"


def designator_of(scheme: str) -> str:
    """Return how DICOM calls a coding scheme; one that it does not know keeps its name."""
    known, _ = _of(scheme)
    return known or one_line(scheme) or SCHEME


def uri_of(scheme: str) -> str:
    """Return how FHIR calls a coding scheme; one that it does not know has a URN of ours, so that it is not lost."""
    _, known = _of(scheme)
    return known or f"urn:meta-dx:scheme:{quote(scheme.strip() or SCHEME, safe='')}"


def printable(text: str) -> str:
    """Return a text of which no character controls a program that reads it; neither DICOM nor FHIR allows those."""
    kept = "".join(c if c.isprintable() or c in f"\r\n\t{_JOINERS}" else " " for c in text)
    return kept.strip(f" \r\n\t{_JOINERS}")


def one_line(text: str) -> str:
    """Return a code or a name as one line, with single spaces between its words."""
    return " ".join(printable(text).split())


def _of(scheme: str) -> tuple[str, str]:
    return _KNOWN.get("".join(filter(str.isalnum, scheme.lower())), ("", ""))
