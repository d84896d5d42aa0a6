from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_dx.dicom.pacs.address import (
    DicomWebAddress,
    DimseAddress,
    Filters,
    ReceivedAddress,
    is_address,
    parse_address,
)
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError


def test_a_dicomweb_address_with_every_filter() -> None:
    text = (
        "dicomweb+https://PACS.example.org:8443/dicom-web/?modality=ct,MR&modality=CR"
        "&from=2024-01-01&to=2024-12-31&body_part=chest&description=low%20dose"
    )
    address = parse_address(text)
    assert address == DicomWebAddress(
        "https://pacs.example.org:8443/dicom-web",
        Filters(("CR", "CT", "MR"), "2024-01-01", "2024-12-31", "CHEST", "low dose"),
    )
    assert address.filters.dates() == "20240101-20241231" and address.filters.pattern() == "*low dose*"
    assert address.host == "pacs.example.org:8443"


def test_a_dimse_address() -> None:
    assert parse_address("dimse://ARCHIVE@pacs:104?modality=CT&move_to=META_DX") == DimseAddress(
        "ARCHIVE", "pacs", 104, move_to="META_DX", filters=Filters(("CT",))
    )
    assert parse_address("dimse+tls://ARCHIVE@pacs:2762").tls  # type: ignore[union-attr]
    assert parse_address("received:") == ReceivedAddress()


def test_two_filters_on_one_server_share_what_was_fetched_and_two_servers_do_not() -> None:
    first, second = parse_address("dimse://A@pacs:104?modality=CT"), parse_address("dimse://A@pacs:104")
    assert first.server == second.server != parse_address("dimse://B@pacs:104").server


@pytest.mark.parametrize(
    "folder", ["studies", "/data/dimse", "C:\\data", "dicomweb", "received", "./received:", "a://b"]
)
def test_a_folder_is_no_address(folder) -> None:
    assert not is_address(folder)


def test_relative_days_count_back_from_today() -> None:
    filters = parse_address("dimse://A@h:1?from=-30d").filters  # type: ignore[union-attr]
    assert filters.dates(date(2024, 3, 1)) == "20240131-"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("dicomweb+https://user:pw-s3cret@pacs/web", "secret_in_address"),
        ("dicomweb+https://s3cret-token@pacs/web", "secret_in_address"),
        ("dimse://AET:s3cret@pacs:104", "secret_in_address"),
        ("dicomweb+http://pacs/web", "insecure_source"),
        ("dicomweb+http://127.0.0.1.example.org/web", "insecure_source"),
        ("dicomweb+https:///web", "bad_source"),
        ("dicomweb+ftp://pacs/web", "bad_source"),
        ("dicomweb://pacs/web", "bad_source"),
        ("dicomweb+https://pacs:port/web", "bad_source"),
        ("dicomweb+https://pacs/web?modalities=CT", "bad_source"),
        ("dicomweb+https://pacs/web?modality=C*", "bad_source"),
        ("dicomweb+https://pacs/web?from=yesterday", "bad_source"),
        ("dicomweb+https://pacs/web?from=2024-02-30", "bad_source"),
        ("dicomweb+https://pacs/web?from=-99999d&to=-999999d", "bad_source"),
        ("dicomweb+https://pacs/web?from=2024-05-01&to=2024-04-01", "bad_source"),
        ("dicomweb+https://pacs/web?from=2024-05-01&from=2024-04-01", "bad_source"),
        ("dicomweb+https://pacs/web?body_part=CHEST%5CHEAD", "bad_source"),
        ("dicomweb+https://pacs/web?move_to=US", "bad_source"),
        ("dicomweb+https://pacs/web#x", "bad_source"),
        ("dimse://pacs:104", "bad_source"),
        ("dimse://AET@pacs", "bad_source"),
        ("dimse://TITLE_OF_SEVENTEEN@pacs:104", "bad_source"),
        ("dimse://AET@pacs:104/path", "bad_source"),
        ("dimse://AET@pacs:104?move_to=", None),
        ("dimse+tls://AET@pacs:104?move_to=US", "insecure_source"),
        ("dimse+tls://AET@pacs:104?move_to=", None),
        ("dimse://AET@pacs:104?move_to=a%20b", "bad_source"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_without_a_secret(text, code) -> None:
    if code is None:
        parse_address(text)
        return
    with pytest.raises(MetaDxError) as caught:
        parse_address(text)
    assert caught.value.code == code and "s3cret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "localhost"])
def test_http_is_for_the_loopback_unless_allowed(host) -> None:
    assert parse_address(f"dicomweb+http://{host}:8042/web")
    assert parse_address("dicomweb+http://pacs/web", PacsOptions(allow_http=True))


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_one_clear_error(text) -> None:
    for prefix in ("dicomweb+https://", "dimse://A@", ""):
        try:
            parse_address(prefix + text)
        except MetaDxError as fault:
            assert str(fault)


def test_a_description_is_found_anywhere_in_it_and_brackets_mean_themselves() -> None:
    filters = Filters(description="low dose [a]")
    assert filters.takes_study("", "CT LOW DOSE [a] of the chest") and not filters.takes_study(
        "", "low dose a"
    )
    assert Filters(description="C?").takes_study("", "CT") and not Filters(description="C?").takes_study(
        "", "CTA"
    )


def test_a_filter_that_the_server_overlooks_is_applied_here() -> None:
    filters = Filters(("CT",), first="2024-01-01", body_part="ABD*")
    assert filters.takes_study("20240101", "") and not filters.takes_study("20231231", "")
    assert filters.takes_study("", ""), "what the server does not say, it has matched itself"
    assert filters.takes_series("CT", "Abdomen") and filters.takes_series("CT", "")
    assert not filters.takes_series("MR", "ABDOMEN") and not filters.takes_series("CT", "HEAD")


@pytest.mark.parametrize(
    "wrong",
    [
        {"ae_title": "has space"},
        {"page_size": 0},
        {"retries": -1},
        {"connections": 17},
        {"listen_port": 65536},
    ],
)
def test_options_are_checked(wrong) -> None:
    with pytest.raises(MetaDxError) as caught:
        PacsOptions(**wrong)
    assert caught.value.code == "bad_value"
