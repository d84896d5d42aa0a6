"""Why a file was not taken: one code and one sentence each (``docs/rejections.md`` lists them)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Outcome = Literal["rejected", "not_dicom", "duplicate"]


class RejectionCode(StrEnum):
    """Every reason for which ingest leaves a file out. The value is what tables and ``--json`` show."""

    EMPTY_FILE = "empty_file"
    NOT_DICOM = "not_dicom"
    DUPLICATE = "duplicate"
    UNREADABLE_FILE = "unreadable_file"
    LINK_OUTSIDE = "link_outside"
    FILE_TOO_LARGE = "file_too_large"
    TRUNCATED = "truncated"
    DAMAGED_HEADER = "damaged_header"
    EXPANSION_LIMIT = "expansion_limit"
    MEMORY_LIMIT = "memory_limit"
    TIME_LIMIT = "time_limit"
    WORKER_CRASHED = "worker_crashed"
    ARCHIVE_EMPTY = "archive_empty"
    ARCHIVE_DAMAGED = "archive_damaged"
    ARCHIVE_ENCRYPTED = "archive_encrypted"
    ARCHIVE_NESTED = "archive_nested"
    ARCHIVE_PATH = "archive_path"
    ARCHIVE_LINK = "archive_link"
    ARCHIVE_LIMIT = "archive_limit"
    REFERENCE_OUTSIDE = "reference_outside"
    REFERENCE_MISSING = "reference_missing"
    MEDIA_DIRECTORY = "media_directory"
    MISSING_IDENTIFIER = "missing_identifier"
    MISSING_PATIENT = "missing_patient"
    MISSING_MODALITY = "missing_modality"
    BURNED_IN_ANNOTATION = "burned_in_annotation"
    RECOGNIZABLE_FEATURES = "recognizable_features"
    SECONDARY_CAPTURE = "secondary_capture"
    ULTRASOUND = "ultrasound"
    NOT_A_PICTURE = "not_a_picture"
    NO_PIXEL_DATA = "no_pixel_data"
    PIXEL_DESCRIPTION = "pixel_description"
    UNSUPPORTED_PHOTOMETRIC = "unsupported_photometric"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    DAMAGED_PIXELS = "damaged_pixels"
    CONFLICTING_INSTANCE = "conflicting_instance"
    STUDY_OF_TWO_PATIENTS = "study_of_two_patients"
    SERIES_OF_TWO_STUDIES = "series_of_two_studies"

    @property
    def sentence(self) -> str:
        """What is wrong with the file, in one sentence without any value of it."""
        return _SENTENCES[self]

    @property
    def outcome(self) -> Outcome:
        """In which column of the accounts the file is counted."""
        if self in (RejectionCode.EMPTY_FILE, RejectionCode.NOT_DICOM, RejectionCode.ARCHIVE_EMPTY):
            return "not_dicom"
        return "duplicate" if self is RejectionCode.DUPLICATE else "rejected"


_SENTENCES = {
    RejectionCode.EMPTY_FILE: "The file has no content.",
    RejectionCode.NOT_DICOM: "The file is not DICOM.",
    RejectionCode.DUPLICATE: "The same instance with the same content has been taken already.",
    RejectionCode.UNREADABLE_FILE: "The operating system could not read the file.",
    RejectionCode.LINK_OUTSIDE: "The file is a symbolic link that leads out of the source folder.",
    RejectionCode.FILE_TOO_LARGE: "The file is larger than the limit for one file.",
    RejectionCode.TRUNCATED: "The file ends before its content does.",
    RejectionCode.DAMAGED_HEADER: "The header cannot be parsed or holds values that contradict the format.",
    RejectionCode.EXPANSION_LIMIT: "Unpacked, the content would be larger than the limit for one file.",
    RejectionCode.MEMORY_LIMIT: "Reading the file took more memory than the limit for one file.",
    RejectionCode.TIME_LIMIT: "Reading the file took longer than the limit for one file.",
    RejectionCode.WORKER_CRASHED: "The process that read the file crashed.",
    RejectionCode.ARCHIVE_EMPTY: "The archive holds no file.",
    RejectionCode.ARCHIVE_DAMAGED: "The archive, or this file in it, cannot be unpacked.",
    RejectionCode.ARCHIVE_ENCRYPTED: "The file in the archive is encrypted.",
    RejectionCode.ARCHIVE_NESTED: "The file in the archive is an archive itself.",
    RejectionCode.ARCHIVE_PATH: "The name of the file in the archive leads out of the archive.",
    RejectionCode.ARCHIVE_LINK: "The file in the archive is a link or a device.",
    RejectionCode.ARCHIVE_LIMIT: "The archive holds more files, or more bytes unpacked, than the limit.",
    RejectionCode.REFERENCE_OUTSIDE: "The table of contents names a file outside of its medium.",
    RejectionCode.REFERENCE_MISSING: "The table of contents names a file that is not there.",
    RejectionCode.MEDIA_DIRECTORY: "The file is the table of contents of a medium (DICOMDIR), not an image.",
    RejectionCode.MISSING_IDENTIFIER: "A SOP class, SOP instance, study or series UID is missing.",
    RejectionCode.MISSING_PATIENT: "PatientID is missing, so nobody can tell whose image it is.",
    RejectionCode.MISSING_MODALITY: "Modality is missing.",
    RejectionCode.BURNED_IN_ANNOTATION: "The picture says that text is burned into it (quarantine).",
    RejectionCode.RECOGNIZABLE_FEATURES: "The picture says that a person can be recognised (quarantine).",
    RejectionCode.SECONDARY_CAPTURE: "The picture is a screenshot, a scan or another conversion (quarantine).",
    RejectionCode.ULTRASOUND: "The picture is an ultrasound image, which mostly shows a name (quarantine).",
    RejectionCode.NOT_A_PICTURE: "The pixels are no picture (segmentation, dose, parametric map).",
    RejectionCode.NO_PIXEL_DATA: "There are no pixel data (report, plan, presentation state, waveform).",
    RejectionCode.PIXEL_DESCRIPTION: "An attribute that describes the pixels is missing or impossible.",
    RejectionCode.UNSUPPORTED_PHOTOMETRIC: "The colour space of the pixels is not supported.",
    RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX: "No decoder is installed for the transfer syntax.",
    RejectionCode.DAMAGED_PIXELS: "The pixel data cannot be decoded.",
    RejectionCode.CONFLICTING_INSTANCE: "Another content has been taken under the same SOP instance UID.",
    RejectionCode.STUDY_OF_TWO_PATIENTS: "The same study UID has been taken already for another patient.",
    RejectionCode.SERIES_OF_TWO_STUDIES: "The same series UID has been taken already in another study.",
}


@dataclass(frozen=True)
class Refusal:
    """A file that is not taken.

    Parameters
    ----------
    code : RejectionCode
        Why.
    detail : str
        What exactly, in our words: an attribute's name, a decoder's class of error. Never a value of the
        file.
    """

    code: RejectionCode
    detail: str = ""

    @property
    def outcome(self) -> Outcome:
        """In which column of the accounts the file is counted."""
        return self.code.outcome

    @property
    def reason(self) -> str:
        """The code's sentence, with the detail where there is one."""
        return f"{self.code.sentence[:-1]}: {self.detail}." if self.detail else self.code.sentence


class RefusedError(Exception):
    """Carries a refusal out of the depth of the reader; never leaves ``read_instance``."""

    def __init__(self, code: RejectionCode, detail: str = "") -> None:
        super().__init__(code)
        self.refusal = Refusal(code, detail)
