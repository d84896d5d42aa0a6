"""Whether a code can be one of its scheme: its form and, where the scheme has one, its check digit."""

from __future__ import annotations

import re

_ICD_10 = re.compile(r"[A-Z][0-9][0-9A-Z](\.?[0-9A-Z]{1,4})?[+*!]?|[A-Z][0-9]{2}-[A-Z]?[0-9]{2}")
_ICD_O = re.compile(r"[0-9]{4}/[0-9]{1,2}|C[0-9]{2}(\.?[0-9])?")
_RADLEX = re.compile(r"RID[1-9][0-9]{0,7}")
_SNOMED = re.compile(r"[1-9][0-9]{5,17}")

# The dihedral group of order ten, and the permutation of the position (Verhoeff 1969; SNOMED CT, appendix on
# the check digit).
_PRODUCT = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_PERMUTATION = (
    "0123456789", "1576283094", "5803796142", "8916043527",
    "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def family_of(scheme: str | None) -> str | None:
    """Return the family of a coding scheme by its usual names, folded; ``None`` for any other scheme.

    Parameters
    ----------
    scheme : str, optional
        Letters and digits only, in lower case (``icd10gm``, ``sct``).
    """
    name = scheme or ""
    if name.startswith("icdo"):
        return "icd-o"
    if name.startswith("icd10") or name in {"i10", "i10p", "i10c"}:
        return "icd-10"
    if name in {"sct", "snomedct", "snomed", "snomedctsct"}:
        return "snomed"
    return "radlex" if name in {"radlex", "rid"} else None


def is_valid(code: str, family: str) -> bool:
    """Tell whether a code can be one of its family.

    Parameters
    ----------
    code : str
        As it stands in the table.
    family : str
        From :func:`family_of`.

    Notes
    -----
    ICD-10, ICD-O and RadLex: the form only. SNOMED CT: 6 to 18 digits, the partition of a concept (00 or 10 before
    the check digit), and Verhoeff's check digit, which finds every single wrong digit and every swap of
    neighbours: also the zeros that a spreadsheet puts in the place of digits from the sixteenth on.
    """
    text = code.strip().upper()
    if family == "snomed":
        return bool(_SNOMED.fullmatch(text)) and text[-3:-1] in {"00", "10"} and verhoeff(text)
    forms = {"icd-10": _ICD_10, "icd-o": _ICD_O, "radlex": _RADLEX}
    return forms[family].fullmatch(text) is not None


def verhoeff(digits: str) -> bool:
    """Tell whether the last digit is Verhoeff's check digit of those before it."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = int(_PRODUCT[check][int(_PERMUTATION[place % 8][int(digit)])])
    return check == 0
