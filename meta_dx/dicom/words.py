"""Which text of a header may be kept: words that everybody's scanner writes, and nothing that names somebody.

A code string such as BodyPartExamined is free text in practice: nothing keeps a clerk from typing a name into
it. So text is not judged by its form but word by word, against a list of words of anatomy, views and image
kinds (``safe_words.txt``). What is not on the list stays behind.
"""

from __future__ import annotations

import re
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
_LONGEST_NUMBER = 3
_LARGE = re.compile(
    r"(B|TE|TI|TR)[0-9]{4}|[0-9]{4}(HU|MM|MS)"
)  # what has numbers of four digits: B1000, TR2500
# 0.625 is a thickness; 31.12.87 is a date, and 123-456 a patient.
_MOST_IN_A_ROW, _MOST_DIGITS_IN_A_ROW = 2, 4
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
    """Tell whether every word of a text, in whatever case, is on the list, an abbreviation or a short number."""
    if not text.isascii():
        return False
    words = [word for word in _SEPARATORS.split(text.upper()) if word]
    return all(_is_safe_word(word) for word in words) and _are_safe_numbers(words)


def code_string(value: object) -> str | None:
    """Return a code string in capitals, or ``None`` where the text is not one of safe words."""
    text = re.sub(" +", " ", str(value or "").strip(_PADDING).upper())
    return text if _CODE.fullmatch(text) and is_safe(text) else None


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
    if len(word) <= _SHORT or word in _words():
        return True
    parts = _WORD.fullmatch(word)
    if parts is None:
        return False
    letters = parts["letters"]
    if sum(map(str.isdigit, word)) > _LONGEST_NUMBER and not _LARGE.fullmatch(word):
        return False  # four digits may be a year of birth
    return len(letters) <= _SHORT or letters in _words()


def _are_safe_numbers(words: list[str]) -> bool:
    for numbers, row in groupby(words, lambda word: word.isdigit() and word not in _words()):
        several = list(row)
        if numbers and len(several) > 1:
            digits = sum(map(len, several))
            if len(several) > _MOST_IN_A_ROW or digits > _MOST_DIGITS_IN_A_ROW:
                return False
    return True


@cache
def _words() -> frozenset[str]:
    lines = resources.files("meta_dx.dicom").joinpath("safe_words.txt").read_text("ascii").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))
