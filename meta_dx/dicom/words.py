"""Which text of a header may be kept: words that everybody's scanner writes, and nothing that names somebody.

A code string such as BodyPartExamined is free text in practice: nothing keeps a clerk from typing a name into
it. So text is not judged by its form but word by word, against a list of words of anatomy, views and image
kinds (``safe_words.txt``). What is not on the list stays behind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources
from itertools import groupby

_PADDING = " \t\r\n\0"
_CODE = re.compile(r"[A-Z0-9 _./\-]{1,32}")
_SEPARATORS = re.compile(r"[^A-Z0-9]+")
_WORD = re.compile(
    r"(?P<letters>[A-Z]*)[0-9]{0,4}(?P<suffix>[A-Z]{0,2})"
)  # T1W, B1000, FE18F: number and unit
_SHORT = 2  # characters of an abbreviation that needs no entry: AP, LL, HU
# What carries its own prefix or unit: B1000, TR2500, 120KV, B30F, 64X0.6, T2W, 3D, L5. Four digits only here.
_MEASURE = re.compile(
    r"(B|TE|TI|TR)[0-9]{1,4}|[0-9]{1,4}(HU|MM|MS)|[0-9]{1,3}(CC|CM|KV|MA|ML)"
    r"|[BDHIJU][0-9]{2}[FHS]|[0-9]{1,3}X[0-9]|T[12]W?|[1-4]D|C[1-7]|T([1-9]|1[0-2])|L[1-6]|S[1-5]"
)
_LONGEST_NUMBER = 3
# 0.625 is a thickness; 31.12.87 is a date, and P123-456 a patient.
_MOST_IN_A_ROW, _MOST_DIGITS, _MOST_DIGITS_OF_MEASURES = 2, 4, 12
# Shapes of the codes of the schemes whose meanings are public.
_CODE_VALUES = {
    "DCM": re.compile(r"\d{6}"),
    "SCT": re.compile(r"\d{6,10}"),
    **dict.fromkeys(("SRT", "SNM3", "99SDM", ""), re.compile(r"[A-Z]-[A-Z0-9]{4,5}")),
    "UCUM": re.compile(r"[A-Za-z0-9%/\[\]{}.:^*\-]{1,12}"),
}

CODING_SCHEMES = frozenset(scheme for scheme in _CODE_VALUES if scheme)


@lru_cache(4096)
def is_safe(text: str) -> bool:
    """Tell whether every word of a text, in whatever case, is on the list, an abbreviation or a short number.

    A short number does not become safe by being a piece of a long one: the digits of a text count together.
    """
    if not text.isascii():
        return False
    words = [word for word in _SEPARATORS.split(text.upper()) if word]
    return all(_is_safe_word(word) for word in words) and _are_safe_numbers(words)


def code_string(value: object) -> str | None:
    """Return a code string in capitals, or ``None`` where the text is not one of safe words."""
    text = re.sub(" +", " ", str(value or "").strip(_PADDING).upper())
    return text if _CODE.fullmatch(text) and is_safe(text) else None


def safe_values(values: Sequence[str]) -> list[bool]:
    """Tell of each value of one attribute whether it is safe.

    Where their numbers are too many together, none with a digit is: a patient's number may be written as three
    values.
    """
    safe = [is_safe(value) for value in values]
    if is_safe(" ".join(value for value, good in zip(values, safe, strict=True) if good)):
        return safe
    return [good and not _digits([value]) for value, good in zip(values, safe, strict=True)]


def code_value(scheme: str, value: str) -> str | None:
    """Return the value of a code, or ``None`` where its scheme is not public or the value not of its shape.

    Parameters
    ----------
    scheme : str
        CodingSchemeDesignator; where it is missing, the code must look like one of SNOMED RT.
    value : str
        CodeValue.
    """
    shape = _CODE_VALUES.get(scheme.strip(_PADDING))
    text = value.strip(_PADDING)
    return text if shape is not None and shape.fullmatch(text) else None


def _is_safe_word(word: str) -> bool:
    if len(word) <= _SHORT or word in _words() or _MEASURE.fullmatch(word):
        return True
    parts = _WORD.fullmatch(word)
    if parts is None or _digits([word]) > _LONGEST_NUMBER:
        return False  # four digits may be a year of birth
    letters = parts["letters"]
    return len(letters) <= _SHORT or letters in _words()


def _are_safe_numbers(words: list[str]) -> bool:
    """Tell whether the numbers of a text are too few to be a date or an identifier, letters among them or not."""
    measures = [word for word in words if _MEASURE.fullmatch(word)]
    numbers = [word for word in words if _is_number(word)]
    rows = (len(list(row)) for are_numbers, row in groupby(words, _is_number) if are_numbers)
    return (
        _digits(numbers) <= _MOST_DIGITS
        and _digits(measures) <= _MOST_DIGITS_OF_MEASURES
        and max(rows, default=0) <= _MOST_IN_A_ROW
    )


def _is_number(word: str) -> bool:
    return word not in _words() and not _MEASURE.fullmatch(word) and _digits([word]) > 0


def _digits(words: list[str]) -> int:
    return sum(map(str.isdigit, "".join(words)))


@cache
def _words() -> frozenset[str]:
    lines = resources.files("meta_dx.dicom").joinpath("safe_words.txt").read_text("ascii").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))
