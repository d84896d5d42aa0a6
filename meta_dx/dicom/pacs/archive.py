"""What every kind of archive answers, and what may go wrong with one of its instances."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from meta_dx.dicom.pacs.landing import PartialFile
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.home import fingerprint_of

#: What lists more matches than this, in one search or for one study, is not heard out.
MOST_MATCHES = 1_000_000

#: Nor is one answer of more bytes; a page of 10,000 matches has about 20 MB.
LISTING_BYTES = 64 << 20

# Leading zeros are against the standard and in use; the archive must be asked with the name that it gave.
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


class FetchFailure(StrEnum):
    """Why an instance that the archive lists was not fetched."""

    BAD_LISTING = "bad_listing", "The archive lists it under something that is no UID."
    NOT_LISTED = "not_listed", "The archive counts it in its study or series and does not list it."
    NOT_SENT = "not_sent", "The archive answered that all is well and sent nothing."
    CUT_OFF = "cut_off", "The transfer ended before the instance did."
    NOT_DICOM = "not_dicom", "What the archive sent is no DICOM file."
    TOO_LARGE = "too_large", "It is larger than [ingest] max_file_bytes."
    GONE = "gone", "The archive lists it and no longer has it."
    REFUSED = "refused", "The archive refuses to send it."
    UNAVAILABLE = "unavailable", "The archive was too busy or could not be reached, several times."
    ANOTHER_SENT = "another_sent", "The archive sent another instance in its place."

    sentence: str

    def __new__(cls, value: str, sentence: str) -> FetchFailure:
        """Give the code its sentence."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


@dataclass(frozen=True)
class ListedStudy:
    """One study as the archive lists it.

    Parameters
    ----------
    uid : str
        Study instance UID.
    identity : str
        Hash of whose study it is; part of the mark of each of its instances.
    mark : str
        Hash of everything the archive says of it, counts included. Empty when the archive gives no counts: then
        nothing tells whether an image was added.
    instances : int, optional
        How many it counts.
    """

    uid: str
    identity: str
    mark: str
    instances: int | None = None


@dataclass(frozen=True)
class ListedInstance:
    """One instance as the archive lists it.

    Parameters
    ----------
    study, series, uid : str
        UIDs.
    sop_class : str
        SOP class UID; empty when the archive does not say.
    mark : str
        Hash of what the archive says of it; another mark means that it has changed.
    """

    study: str
    series: str
    uid: str
    sop_class: str
    mark: str


@dataclass(frozen=True)
class Listing:
    """The instances of one study that the filters let through.

    Parameters
    ----------
    instances : tuple of ListedInstance
        Each once.
    unusable : int
        Entries whose UID is none.
    missing : int
        Instances that the archive counts in these series and does not list.
    """

    instances: tuple[ListedInstance, ...]
    unusable: int = 0
    missing: int = 0


Outcome = tuple[ListedInstance, FetchFailure | None]
Land = Callable[[ListedInstance, PartialFile], None]
"""Called with an instance and its complete file, which is to be kept under a name of our own."""


class Archive(Protocol):
    """An opened archive."""

    def studies(self) -> tuple[list[ListedStudy], int]:
        """List the studies that the filters let through, and count entries whose UID is none."""

    def instances(self, study: ListedStudy) -> Listing:
        """List the instances of one study."""

    def retrieve(self, wanted: Sequence[ListedInstance], land: Land) -> Iterator[Outcome]:
        """Fetch instances of one study; each comes out once, landed or with what went wrong."""

    def close(self) -> None:
        """End the connections."""


def is_uid(text: object) -> bool:
    """Tell whether a text can be a UID."""
    return isinstance(text, str) and len(text) <= 64 and _UID.fullmatch(text) is not None


STUDY_IDENTITY = ("PatientID", "IssuerOfPatientID", "StudyDate", "AccessionNumber")
STUDY_COUNTS = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
SERIES_FIELDS = ("Modality", "BodyPartExamined", "NumberOfSeriesRelatedInstances")
INSTANCE_FIELDS = (
    "SOPClassUID",
    "InstanceNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "ContentDate",
    "ContentTime",
)


def listed_study(value: Callable[[str], str]) -> ListedStudy | None:
    """Make an entry of what the archive says of a study, given by keyword; None when its UID is none."""
    uid = value("StudyInstanceUID")
    if not is_uid(uid):
        return None
    identity = fingerprint_of([value(name) for name in STUDY_IDENTITY])
    counts = [value(name) for name in STUDY_COUNTS]
    number = counted(counts[1])
    mark = "" if number is None else fingerprint_of([identity, *counts])
    return ListedStudy(uid, identity, mark, number)


def counted(text: str) -> int | None:
    """Return a number of instances that the archive gives; None when it gives none."""
    return int(text) if re.fullmatch(r"[0-9]{1,7}", text) else None


def listed_instance(study: ListedStudy, series: str, value: Callable[[str], str]) -> ListedInstance | None:
    """Make an entry of what the archive says of an instance, given by keyword; None when its UID is none."""
    uid, sop_class = value("SOPInstanceUID"), value("SOPClassUID")
    if not is_uid(uid):
        return None
    mark = fingerprint_of([study.identity, series, [value(name) for name in INSTANCE_FIELDS]])
    return ListedInstance(study.uid, series, uid, sop_class if is_uid(sop_class) else "", mark)


def attempts(options: PacsOptions, pause: Callable[[float], None] = time.sleep) -> Iterator[Attempt]:
    """Yield one attempt after the other, with growing pauses; the last one says that it is."""
    for number in range(options.retries + 1):
        attempt = Attempt(last=number == options.retries)
        yield attempt
        if not attempt.last:
            grown = options.backoff_seconds * 2**number * random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
            pause(min(max(grown, attempt.retry_after), options.max_pause_seconds))


@dataclass
class Attempt:
    """One attempt: whether it is the last one, and how long the server asks to be left alone, in seconds."""

    last: bool
    retry_after: float = 0.0
