import hashlib
import hmac
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from meta_dx.dicom.identity import Surrogates

KEY = bytes(range(32))
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=70)


@given(text, text)
def test_the_same_original_has_the_same_surrogate_and_another_has_another(one, two):
    first, again = Surrogates(KEY), Surrogates(KEY)
    for kind in ("uid", "patient", "accession", "file"):
        assert getattr(first, kind)(one) == getattr(again, kind)(one)
        if one.strip(" \t\r\n\0") != two.strip(" \t\r\n\0"):
            assert getattr(first, kind)(one) != getattr(first, kind)(two)


@given(text)
def test_another_key_gives_other_surrogates(original):
    one, two = Surrogates(KEY), Surrogates(KEY[::-1])
    for kind in ("uid", "patient", "accession", "file"):
        assert getattr(one, kind)(original) != getattr(two, kind)(original)


@given(text)
def test_surrogates_have_the_form_that_dicom_allows(original):
    surrogates = Surrogates(KEY)
    uid = UID(surrogates.uid(original))
    assert uid.is_valid and uid.startswith("2.25.") and int(uid[5:]) < 2**128
    assert len(surrogates.patient(original)) == 17 and surrogates.patient(original)[0] == "P"
    assert len(surrogates.accession(original)) == 16 and surrogates.accession(original)[0] == "A"
    assert len(surrogates.file(original)) == 17 and surrogates.file(original)[0] == "F"


def test_a_hostile_uid_leaves_no_trace_in_its_surrogate():
    assert set(Surrogates(KEY).uid("../../../etc/passwd")) <= set("0123456789.")


@pytest.mark.parametrize("padded", ["1.2.3\0", " 1.2.3", "1.2.3 ", "1.2.3\0\0"])
def test_padding_makes_no_difference(padded):
    surrogates = Surrogates(KEY)
    assert surrogates.uid(padded) == surrogates.uid("1.2.3")
    assert surrogates.patient(padded) == surrogates.patient("1.2.3")
    assert surrogates.accession(padded) == surrogates.accession("1.2.3")


def test_the_same_number_from_two_issuers_is_two_patients():
    surrogates = Surrogates(KEY)
    names = {surrogates.patient("12", issuer) for issuer in (None, "north", "south")}
    assert len(names) == 3
    assert surrogates.patient("12", "") == surrogates.patient("12")
    assert surrogates.patient("1", "2x") != surrogates.patient("12", "x")


def test_kinds_do_not_share_surrogates():
    surrogates = Surrogates(KEY)
    assert surrogates.patient("X")[1:] != surrogates.file("X")[1:]
    assert surrogates.accession("X")[1:] != surrogates.patient("X")[1:16]


@given(st.binary(max_size=200))
def test_the_digest_is_an_hmac_that_the_plain_hash_does_not_reveal(data):
    surrogates = Surrogates(KEY)
    assert surrogates.digest(data) == surrogates.digest(bytearray(data))
    assert surrogates.digest(data) != hashlib.sha256(data).hexdigest()
    assert surrogates.digest(data) != Surrogates(KEY[::-1]).digest(data)
    content_key = hmac.new(
        KEY, b"\0" * 7 + b"\7content" + b"\0" * 8, "sha256"
    ).digest()  # each part behind its length
    assert surrogates.digest(data) == hmac.new(content_key, data, "sha256").hexdigest()


@given(st.text(max_size=20), st.dates(date(1900, 1, 1)), st.integers(0, 4000))
def test_dates_move_into_the_past_and_keep_their_distance(patient, day, apart):
    surrogates = Surrogates(KEY)
    days = surrogates.shift_days(patient)
    assert 1 <= days <= 365
    assert surrogates.shift(day, patient) == day - timedelta(days)
    later = date(1950, 1, 1) + timedelta(apart)
    distance = surrogates.shift(later, patient) - surrogates.shift(date(1950, 1, 1), patient)
    assert distance.days == apart


def test_shifts_differ_between_patients():
    surrogates = Surrogates(KEY)
    assert len({surrogates.shift_days(f"P{i}") for i in range(200)}) > 100


def test_a_date_before_the_calendar_is_dropped():
    assert Surrogates(KEY).shift(date(1, 1, 1), "P") is None


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="16 bytes"):
        Surrogates(b"short")
