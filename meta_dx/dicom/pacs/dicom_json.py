"""DICOM JSON, as far as it is needed: the values of a match of QIDO-RS as text, and what tells it apart."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from meta_dx.home import fingerprint_of

#: Characters of one match; a server that tells all that it knows sends some thousands.
LONGEST_MATCH = 1 << 20

_USUAL_MATCH = 1 << 12
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """One match: what tells it apart, and those of its values that are ever asked for, by tag."""

    key: str
    values: dict[str, str]

    def value(self, keyword: str) -> str:
        """Return a value as text, several joined as DICOM does, empty where there is none or nonsense."""
        return self.values.get(TAGS[keyword], "")


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


def entries(body: Iterable[bytes]) -> Iterator[Entry]:
    """Read the matches of an answer one by one, as it comes.

    A list parsed at once takes forty times its bytes in memory if a server wants it to. Here no more of it is
    held at a time than one match, and of each only what is asked for stays.

    Parameters
    ----------
    body : iterable of bytes
        JSON in UTF-8, cut anywhere: a list of matches, one match, or nothing.

    Yields
    ------
    Entry

    Raises
    ------
    ValueError
        It is something else, or a match has more than :data:`LONGEST_MATCH` characters or lies too deep.
    """
    text = _Text(body)
    first = text.next_character()
    if not first:
        return
    if first == "[":
        text.skip()
        if text.next_character() != "]":
            yield text.match()
            while text.next_character() == ",":
                text.skip()
                yield text.match()
        if text.next_character() != "]":
            raise ValueError("the list has no end")
        text.skip()
    else:
        yield text.match()
    if text.next_character():
        raise ValueError("something comes after the list")


class _Text:
    """The text of a body, read as far as needed."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._text, self._at = "", 0
        self._more = codecs.iterdecode(body, "utf-8-sig")
        self._decode = json.JSONDecoder().raw_decode

    def next_character(self) -> str:
        """Return the next character that is no space, without going past it; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._fill(1):
                return ""

    def skip(self) -> None:
        """Go past a character."""
        self._at += 1

    def match(self) -> Entry:
        """Read one match and go past it."""
        if self.next_character() != "{":
            raise ValueError("a match is an object")
        size = _USUAL_MATCH
        while True:
            whole = self._fill(size)
            try:
                content, end = self._decode(self._text[self._at : self._at + size])
            except RecursionError:
                raise ValueError("it lies too deep") from None
            except ValueError:
                if not whole or size >= LONGEST_MATCH:
                    raise
                size *= 4
                continue
            self._at += end
            return Entry(_key_of(content), {tag: _text_of(content[tag]) for tag in _WANTED & content.keys()})

    def _fill(self, size: int) -> bool:
        """Read on until there are so many characters; False when there are no more."""
        missing = size - (len(self._text) - self._at)
        if missing <= 0:
            return True
        pieces = [self._text[self._at :]]
        for piece in self._more:
            pieces.append(piece)
            missing -= len(piece)
            if missing <= 0:
                break
        self._text, self._at = "".join(pieces), 0
        return missing <= 0


_WANTED = frozenset(TAGS.values())


def _text_of(element: Any) -> str:
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list):
        return ""
    return "\\".join(str(value) for value in values if isinstance(value, str | int | float))[:1024]


def _key_of(content: dict[str, Any]) -> str:
    """Return what tells two matches apart, whatever the server put there."""
    for tag in ("00080018", "0020000E", "0020000D"):  # the deepest level that the entry has
        element = content.get(tag)
        if isinstance(element, dict) and element.get("Value"):
            return f"{tag} {fingerprint_of(element['Value'])}"
    return fingerprint_of(content)
