"""Pictures that may show whose they are stay out unless their kind is allowed."""

from pathlib import Path

import pytest

from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.quarantine import QUARANTINED
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits, read_instance
from tests.dicom.builders import write_instance

SURROGATES = Surrogates(b"a key of the test, 32 bytes long")
CLASSES = "1.2.840.10008.5.1.4.1.1."

QUARANTINE = {
    "burned in": ("burned_in_annotation", {"BurnedInAnnotation": "YES"}),
    "burned in, badly written": ("burned_in_annotation", {"BurnedInAnnotation": " yes "}),
    **{
        f"burned in, spelled {word}": ("burned_in_annotation", {"BurnedInAnnotation": word})
        for word in ("TRUE", "true ", "T", "1", "Y")
    },
    "burned in, several values": ("burned_in_annotation", {"BurnedInAnnotation": ["NO", "YES"]}),
    "burned in, after a blank": ("burned_in_annotation", {"BurnedInAnnotation": ["NO", " YES"]}),
    "a face": ("recognizable_features", {"RecognizableVisualFeatures": "YES"}),
    "secondary capture": ("secondary_capture", {"SOPClassUID": CLASSES + "7"}),
    "secondary capture with loops": ("secondary_capture", {"SOPClassUID": CLASSES + "7.4"}),
    "scanned paper": ("secondary_capture", {"ConversionType": "SD"}),
    "screenshot of a scanner": ("secondary_capture", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
    **{
        f"screenshot called {word}": ("secondary_capture", {"ImageType": ["DERIVED", "SECONDARY", word]})
        for word in (
            "SCREEN CAPTURE",
            "SCREEN_CAPTURE",
            "screen-shot 2",
            "SCREENSHOT",
            "SCREEN_SAVE",
            "SCREENSAVE1",
            "SCREEN",
            "PRINT SCREEN",
            "CAPTURE",
            "SECONDARY CAPTURE",
            "CAPTURED",
            "DOSE_INFO",
            "DOSE REPORT",
            "CT_SOM5 PROT",
            "CT_SOM7 PROT",
            "PATIENT PROTOCOL",
        )
    },
    "ultrasound": ("ultrasound", {"SOPClassUID": CLASSES + "6.1", "Modality": "US"}),
    "ultrasound loop": ("ultrasound", {"SOPClassUID": CLASSES + "3.1"}),
    "by its modality": ("ultrasound", {"Modality": "IVUS"}),
}

ACCEPTED = {
    "radiograph": {},
    "says that nothing is burned in": {"BurnedInAnnotation": "NO"},
    "reformatted": {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
    "screening": {"ImageType": ["ORIGINAL", "PRIMARY", "SCREENING", "SNAPSHOT"]},
    "words of two values": {"ImageType": ["ORIGINAL", "PRIMARY", "DOSE", "INFO"]},
    "Siemens' slice and topogram": {"ImageType": ["ORIGINAL", "PRIMARY", "CT_SOM5 SPI", "CT_SOM5 TOP"]},
    "proton density": {"ImageType": ["ORIGINAL", "PRIMARY", "PROTON DENSITY", "PROTON"]},
    **{f"not burned in, spelled {word}": {"BurnedInAnnotation": word} for word in ("FALSE", "0", "N", "")},
    "photograph": {"SOPClassUID": CLASSES + "77.1.4", "Modality": "XC"},
    "raw CT class that begins alike": {"SOPClassUID": CLASSES + "77.1.7"},
}


def outcome(path: Path, *allow: str) -> str | None:
    result = read_instance(path, SURROGATES, limits=ReadLimits(allow=frozenset(allow)))
    return None if isinstance(result, AcceptedInstance) else str(result.code)


@pytest.mark.parametrize("case", QUARANTINE)
def test_a_picture_that_may_show_a_name_is_refused_until_its_kind_is_allowed(tmp_path, case):
    code, tags = QUARANTINE[case]
    path = write_instance(tmp_path, **tags)
    assert outcome(path) == code
    assert outcome(path, *(other for other in QUARANTINED if other != code)) == code
    assert outcome(path, code) is None


@pytest.mark.parametrize("case", ACCEPTED)
def test_other_pictures_are_taken(tmp_path, case):
    assert outcome(write_instance(tmp_path, **ACCEPTED[case])) is None


def test_a_picture_of_two_kinds_needs_both(tmp_path):
    path = write_instance(tmp_path, BurnedInAnnotation="YES", Modality="US")
    assert outcome(path, "burned_in_annotation") == "ultrasound"
    assert outcome(path, "ultrasound") == "burned_in_annotation"
    assert outcome(path, "ultrasound", "burned_in_annotation") is None
