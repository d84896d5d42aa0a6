"""Which text of a header is safe to keep."""

import pytest

from meta_dx.dicom.words import code_string, code_value, is_safe

SAFE = [
    "CHEST",
    "HEAD NECK",
    "T1W",
    "B1000",
    "CT_SOM5 SPI",
    "ISO_10918_1",
    "DERIVED",
    "AP",
    "AFR",
    "LOWER EXTREMITY",
    "T2 TR2500 TE80",
    "AXIAL 0.625 MM",
    "HEAD 1000MS",
]
UNSAFE = [
    "SMITH",
    "ARM OF MR SMITH",
    "QZTOKENQZ",
    "19591103",
    "1959",
    "03.11.1959",
    "CHEST 4711",
    "KOWALSKI-MEIER",
    "HEAD 31.12.87",
    "HEAD 3.1.87",
    "HEAD 12:34:56",
    "MR 123-456-789",
    "CT 123-456",
    "AB1234CD",
    "MR1234",
    "HEAD1987",
    "1987M",
]


@pytest.mark.parametrize("text", SAFE)
def test_words_of_anatomy_and_acquisition_are_kept(text):
    assert code_string(text.lower() + " ") == text


@pytest.mark.parametrize("text", UNSAFE)
def test_names_and_numbers_are_not(text):
    assert code_string(text) is None


def test_letters_that_only_look_alike_are_not_safe():
    assert is_safe("CHEST") and not is_safe("CHЕST")  # a Cyrillic letter


@pytest.mark.parametrize(
    ("scheme", "value", "kept"),
    [
        ("SCT", "399348003", True),
        ("SRT", "R-10226", True),
        ("", "R-10226", True),
        ("DCM", "113100", True),
        ("DCM", "SMITH", False),
        ("99HOSPITAL", "113100", False),
        ("", "4711", False),
    ],
)
def test_codes_of_public_schemes_are_kept_in_their_shape(scheme, value, kept):
    assert code_value(scheme, value) == (value if kept else None)
