"""Which text of a header is safe to keep."""

import numpy as np
import pytest

from meta_dx.dicom.words import code_string, code_value, is_safe, safe_values

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
    "T1",
    "3D",
    "C7",
    "L5-S1",
    "SPINE T12-L1 L2-L3 L4-L5",
    "ABDOMEN 5MM 120KV B30F 64X0.6",
    "HEART 1.5 B25F 55",
    "B0 B50 B400 B800",
    "T2W TR2500 TE80 5MM",
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
    "A123-B456-C789",
    "P123-456",
    "CHEST P123-456",
    "S19-123",
    "D31.M12.Y87",
    "D3.M1.Y87",
    "M01-D02 Y61",
    "31ST 12TH 87",
    "12A 34B 56C 78D",
    "T2 A12 HEAD K34 CHEST P5",
    "123MM-456MM 789MM 012MM 3MM",
]


@pytest.mark.parametrize("text", SAFE)
def test_words_of_anatomy_and_acquisition_are_kept(text):
    assert code_string(text.lower() + " ") == text


@pytest.mark.parametrize("text", UNSAFE)
def test_names_and_numbers_are_not(text):
    assert code_string(text) is None


@pytest.mark.parametrize("letter", "AGKMPXZ")
def test_letters_between_its_digits_make_no_identifier_safe(letter):
    digits = "".join(map(str, np.random.default_rng().integers(0, 10, 8)))
    for size in (1, 2, 3):
        pieces = [digits[start : start + size] for start in range(0, 8, size)]
        for text in ("-".join(letter + piece for piece in pieces), " ".join(p + letter for p in pieces)):
            assert not is_safe(text), text


def test_values_of_one_attribute_are_judged_together():
    assert safe_values(["ORIGINAL", "SMITH", "B30F", "12"]) == [True, False, True, True]
    assert safe_values(["ORIGINAL", "123", "456"]) == [True, False, False]


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
