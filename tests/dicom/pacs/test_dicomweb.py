"""What a DICOMweb server can do wrong, and that nothing of it is lost, believed or told with a secret or a UID."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from meta_dx.cohort.fetch import FetchSummary, failed_instances, fetch, landing_folder
from meta_dx.dicom.pacs import archive, dicomweb_service
from meta_dx.dicom.pacs.credentials import PASSWORD_VARIABLE, TOKEN_VARIABLE, USER_VARIABLE
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from tests.dicom.pacs.web_server import Handler, WebServer, element, few, serving


@pytest.fixture
def web() -> Iterator[WebServer]:
    with serving(WebServer(few())) as world:
        yield world


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (TOKEN_VARIABLE, USER_VARIABLE, PASSWORD_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def landed(home: Home, web: WebServer) -> set[bytes]:
    return {file.read_bytes() for file in landing_folder(home, web.address).iterdir()}


def sent(web: WebServer) -> set[bytes]:
    return {data for series in web.content.values() for one in series.values() for data in one.values()}


def once(act: object, times: int = 1) -> object:
    """Make trouble for the first requests of each instance."""
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def trouble(handler: Handler) -> bool:
        if not handler.fetching:
            return False
        with lock:
            seen[handler.path] = seen.get(handler.path, 0) + 1
        if seen[handler.path] > times:
            return False
        act(handler)
        return True

    return trouble


def always(act: object, only: str = "") -> object:
    def trouble(handler: Handler) -> bool:
        if not handler.fetching or only not in handler.path:
            return False
        act(handler)
        return True

    return trouble


def nothing(handler: Handler) -> None:
    handler.send(b"", 'multipart/related; type="application/dicom"; boundary=line')


def no_parts(handler: Handler) -> None:
    handler.send_parts([])


def half(handler: Handler) -> None:
    handler.send_parts([b"\0" * 128 + b"DICM" + b"x" * 9000], cut=5000)


def no_end(handler: Handler) -> None:
    body = b"--line\r\n\r\n" + b"\0" * 128 + b"DICM and then the program that wrote this stopped"
    handler.send(body, 'multipart/related; type="application/dicom"; boundary=line')


def busy(handler: Handler) -> None:
    handler.send(b"", status=503, Retry_After="7")


def broken(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(2)


def web_page(handler: Handler) -> None:
    handler.send(b"<html>Please log in, John Doe</html>" * 10, "text/html")


FOR_NOW = [nothing, no_parts, half, no_end, busy, broken, web_page]


@pytest.mark.parametrize("act", FOR_NOW)
def test_what_goes_wrong_once_is_asked_for_again(home, web, quick, act) -> None:
    web.trouble = once(act)
    assert fetch(home, web.address, options=quick) == FetchSummary(found=3, fetched=3, studies=1)
    assert landed(home, web) == sent(web)


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (nothing, "not_sent"),
        (no_parts, "not_sent"),
        (half, "cut_off"),
        (no_end, "cut_off"),
        (busy, "unavailable"),
        (broken, "unavailable"),
        (web_page, "not_dicom"),
        (lambda h: h.send(b"", status=404), "gone"),
        (lambda h: h.send(b"", status=403), "refused"),
        (lambda h: h.send(b"", status=406), "refused"),
        (lambda h: h.send_parts([b"\0" * 128 + b"DICM" + b"x" * 70_000]), "too_large"),
        (lambda h: h.send_parts([b"\0" * 128 + b"DICM" + b"x" * 7] * 2), "another_sent"),
    ],
)
def test_what_goes_wrong_every_time_is_a_code_and_the_rest_is_fetched(home, web, quick, act, code) -> None:
    web.trouble = always(act, only="1.2.1.1.1")
    summary = fetch(home, web.address, options=quick, max_file_bytes=50_000)
    assert summary == FetchSummary(found=3, fetched=2, failed={code: 1}, studies=1)
    assert len(landed(home, web)) == 2
    assert [(one.instance, one.state) for one in failed_instances(home, web.address)] == [("1.2.1.1.1", code)]
    unfinished = landing_folder(home, web.address).parent
    assert [p for p in unfinished.rglob("*") if p.is_file() and p.suffix not in (".dcm", ".lock")] == []
    web.trouble = None
    assert fetch(home, web.address, options=quick) == FetchSummary(
        found=3, fetched=1, already_here=2, studies=1
    )
    assert failed_instances(home, web.address) == []


def test_a_server_that_is_gone_for_good_is_not_asked_for_everything(home, web, quick) -> None:
    web.content = few(studies=1, images=60)
    web.trouble = always(broken)
    with pytest.raises(MetaDxError) as caught:
        fetch(home, web.address, options=quick)
    assert caught.value.code == "pacs_unreachable"
    assert len(set(web.retrieved())) < 20
    web.trouble = None
    assert fetch(home, web.address, options=quick).fetched == 60


def test_what_had_landed_before_the_server_went_is_not_fetched_again(home, web, quick) -> None:
    web.content = few(studies=1, images=30)
    gone = threading.Event()

    def trouble(handler: Handler) -> bool:
        if len(web.retrieved()) > 12:
            gone.set()
        if gone.is_set() and handler.fetching:
            broken(handler)
            return True
        return False

    web.trouble = trouble
    with pytest.raises(MetaDxError):
        fetch(home, web.address, options=quick)
    before = len(landed(home, web))
    assert before > 5
    web.trouble = None
    web.asked.clear()
    summary = fetch(home, web.address, options=quick)
    assert (summary.found, summary.fetched, summary.already_here) == (30, 30 - before, before)
    assert len(web.retrieved()) == 30 - before
    assert landed(home, web) == sent(web)


def test_the_pause_that_the_server_asks_for_is_kept_and_grows_otherwise(monkeypatch) -> None:
    pauses: list[float] = []
    options = PacsOptions(retries=5, backoff_seconds=1, max_pause_seconds=10)
    for number, attempt in enumerate(archive.attempts(options, pauses.append)):
        attempt.retry_after = 7.0 if number == 0 else 3600.0 if number == 4 else 0.0
    assert pauses[0] == 7.0 and pauses[4] == 10.0, "but not an hour: the longest pause is an option"
    assert all(0.5 * 2**n <= pauses[n] <= 1.5 * 2**n for n in (1, 2))
    assert len(pauses) == 5


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    from email.utils import formatdate

    from meta_dx.dicom.pacs.dicomweb_service import _seconds

    assert _seconds("12") == 12.0
    assert 50 < _seconds(formatdate(time.time() + 60)) <= 60
    assert _seconds("soon") == _seconds("") == _seconds(formatdate(0)) == 0.0


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("counts", [True, False])
def test_every_page_is_turned_once(home, web, size, counts) -> None:
    web.content, web.counts = few(studies=3, images=7), counts
    options = PacsOptions(page_size=size, retries=0)
    assert fetch(home, web.address, options=options).fetched == 21
    assert landed(home, web) == sent(web)


def test_a_server_that_gives_shorter_pages_than_asked_for_is_heard_out(home, web, quick) -> None:
    web.content, web.counts, web.most = few(studies=5, images=9), False, 4
    assert fetch(home, web.address, options=quick).fetched == 45


@pytest.mark.parametrize("counted", [0, 1, 2, 4])
def test_a_server_that_counts_too_few_is_heard_out(home, web, quick, monkeypatch, counted) -> None:
    web.content = few(images=5)
    monkeypatch.setattr(Handler, "count", staticmethod(lambda *_: {"00201209": element(counted)}))
    summary = fetch(home, web.address, options=replace(quick, page_size=2))
    assert summary == FetchSummary(found=5, fetched=5, studies=1)


def test_no_page_is_asked_for_behind_the_last_one_where_the_server_counts(home, web, quick) -> None:
    fetch(home, web.address, options=quick)
    assert len([path for path in web.asked if path.endswith("/instances")]) == 1


def test_a_server_that_repeats_its_first_page_is_noticed_not_believed(home, web) -> None:
    web.content, web.ignores_offset, web.counts = few(studies=5), True, False
    with pytest.raises(MetaDxError) as caught:
        fetch(home, web.address, options=PacsOptions(page_size=2, retries=0))
    assert caught.value.code == "pacs_paging"
    whole = fetch(home, web.address, options=PacsOptions(page_size=50, retries=0))
    assert whole.fetched == 15, "where everything fits into a page, repeating it does no harm"


@pytest.mark.parametrize("filters", ["", "?modality=CR"])
def test_an_instance_that_is_counted_but_not_listed_is_accounted_for(home, web, quick, filters) -> None:
    def trouble(handler: Handler) -> bool:
        if handler.path.split("?")[0].endswith("/instances"):
            handler.send(b'[{"00080018":{"vr":"UI","Value":["1.2.1.1.0"]}}]', "application/dicom+json")
            return True
        return False

    web.trouble = trouble
    summary = fetch(home, web.address + filters, options=quick)
    assert summary == FetchSummary(found=3, fetched=1, failed={"not_listed": 2}, studies=1)


@pytest.mark.parametrize("uid", ["../../../etc/x", "1.2/../3", "1.2.3?x=1", "", "1" * 65, 17, None, {"a": 1}])
def test_a_uid_that_is_none_is_counted_and_never_asked_for(home, web, quick, uid) -> None:
    import json

    def trouble(handler: Handler) -> bool:
        if handler.path.split("?")[0].endswith("/studies"):
            offset = "offset=0" in handler.path
            body = [{"0020000D": {"vr": "UI", "Value": [uid]}}] if offset else []
            handler.send(json.dumps(body).encode(), "application/dicom+json")
            return True
        return False

    web.trouble = trouble
    summary = fetch(home, web.address, options=quick)
    assert summary == FetchSummary(found=1, failed={"bad_listing": 1})
    assert {path for path in web.asked} == {"/web/studies"}


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"a":', b"[1, 2]", b'"text"', b"\xff\xfe", b"[" * 100_000], ids=range(6)
)
def test_a_listing_that_is_none_is_one_clear_sentence(home, web, quick, body) -> None:
    web.trouble = lambda handler: handler.send(body, "application/json") or True
    with pytest.raises(MetaDxError) as caught:
        fetch(home, web.address, options=quick)
    assert caught.value.code == "pacs_answer"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "pacs_credentials"),
        (403, "pacs_credentials"),
        (404, "pacs_no_service"),
        (400, "pacs_refused"),
        (302, "pacs_redirect"),
        (503, "pacs_unreachable"),
    ],
)
def test_each_refusal_is_one_sentence_without_the_secret(home, web, quick, monkeypatch, status, code) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret-t0ken")
    web.trouble = lambda handler: handler.send(b"", status=status, Location="http://127.0.0.1:9/evil") or True
    with pytest.raises(MetaDxError) as caught:
        fetch(home, web.address, options=quick)
    assert caught.value.code == code
    assert "s3cret" not in str(caught.value) and str(caught.value).count(". ") == 0
    if code == "pacs_credentials":
        assert len(web.asked) == 1, "a wrong login is not tried again: accounts get locked"


def test_a_wrong_login_in_the_middle_is_not_tried_for_every_instance(home, web, quick) -> None:
    web.content = few(images=50)
    web.trouble = always(lambda handler: handler.send(b"", status=401))
    with pytest.raises(MetaDxError) as caught:
        fetch(home, web.address, options=quick)
    assert caught.value.code == "pacs_credentials"
    assert len(web.retrieved()) < 10


def test_the_login_goes_to_no_other_server(home, web, quick, monkeypatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret-t0ken")
    with serving(WebServer(few())) as other:
        web.trouble = lambda h: (
            h.send(b"", status=307, Location=f"http://127.0.0.1:{other.port}{h.path}") or True
        )
        with pytest.raises(MetaDxError) as caught:
            fetch(home, web.address, options=quick)
        assert caught.value.code == "pacs_redirect" and other.asked == []
    assert web.headers[0]["Authorization"] == "Bearer s3cret-t0ken"


def test_what_the_environment_says_of_proxies_and_logins_is_not_used(
    home, web, quick, monkeypatch, tmp_path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch(home, web.address, options=quick).fetched == 3
    assert all("Authorization" not in headers for headers in web.headers)


def test_an_unreachable_server_is_one_sentence(home, quick) -> None:
    with pytest.raises(MetaDxError) as caught:
        fetch(home, "dicomweb+http://127.0.0.1:9/web", options=quick)
    assert caught.value.code == "pacs_unreachable"


def test_a_server_without_a_trusted_certificate_is_told_so(home, quick, web) -> None:
    with pytest.raises(MetaDxError) as caught:
        fetch(home, web.address.replace("http:", "https:"), options=quick)
    assert caught.value.code == "pacs_tls"


def drip(handler: Handler, heard_out: list[bool]) -> None:
    """Send a byte now and then, and tell whether somebody listened to all of them."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/dicom")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(1000):
        try:
            handler.wfile.write(b" ")
            time.sleep(0.01)
        except OSError:
            break
    else:
        heard_out.append(True)
    handler.close_connection = True


def test_an_instance_of_a_byte_a_minute_does_not_hold_the_night_up(home, web) -> None:
    web.content, heard_out = few(images=1), []
    web.trouble = always(lambda handler: drip(handler, heard_out))
    options = PacsOptions(retries=0, instance_seconds=0.2)
    assert fetch(home, web.address, options=options).failed == {"cut_off": 1}
    assert not heard_out


def test_a_listing_of_a_byte_a_minute_does_not_hold_the_night_up(home, web) -> None:
    heard_out: list[bool] = []
    web.trouble = lambda handler: drip(handler, heard_out) or True
    options = PacsOptions(retries=0, instance_seconds=0.2)
    with pytest.raises(MetaDxError) as caught:
        fetch(home, web.address, options=options)
    assert caught.value.code == "pacs_unreachable" and not heard_out


def forever(handler: Handler, head: bytes, bite: bytes, heard_out: list[bool]) -> bool:
    """Send a head, and then a bite now and then for as long as somebody listens (20 s at most)."""
    handler.close_connection = True
    try:
        handler.wfile.write(head)
        for _ in range(1000):
            handler.wfile.write(bite)
            time.sleep(0.02)
    except OSError:
        return True
    heard_out.append(True)
    return True


OK, JSON = b"HTTP/1.1 200 OK\r\n", b"Content-Type: application/dicom+json\r\n"


@pytest.mark.parametrize(
    ("head", "bite"),
    [
        (b"", b"H"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"X-Word: ", b"x"),
        (OK + JSON + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (OK + JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\nX-Word: ", b"x"),
        (OK + JSON + b"Content-Length: 100000\r\n\r\n", b" "),
    ],
    ids=["status", "continue", "header", "chunk length", "trailer", "body"],
)
def test_no_part_of_an_answer_that_comes_byte_by_byte_holds_the_night_up(home, web, head, bite) -> None:
    heard_out: list[bool] = []
    web.trouble = lambda handler: forever(handler, head, bite, heard_out)
    options = PacsOptions(retries=0, read_seconds=0.3, instance_seconds=0.3)
    with pytest.raises(MetaDxError) as caught:
        fetch(home, web.address, options=options)
    assert caught.value.code == "pacs_unreachable" and not heard_out


def test_an_instance_whose_end_is_only_our_hanging_up_does_not_count_as_whole(home, web) -> None:
    web.content, heard_out = few(images=1), []
    head = OK + b"Content-Type: application/dicom\r\n\r\n" + b"\0" * 128 + b"DICM"
    web.trouble = always(lambda handler: forever(handler, head, b"x", heard_out))
    summary = fetch(home, web.address, options=PacsOptions(retries=0, instance_seconds=0.3))
    assert summary.failed == {"cut_off": 1} and not landed(home, web) and not heard_out


def test_an_answer_that_takes_long_to_begin_is_waited_for(home, web, quick) -> None:
    web.trouble = lambda handler: time.sleep(0.05)
    fetch(home, web.address, options=replace(quick, read_seconds=5.0))
    assert landed(home, web) == sent(web)


@pytest.mark.parametrize(("limit", "most"), [("LISTING_BYTES", 100), ("_MOST_IN_ONE_ANSWER", 2)])
def test_an_answer_with_too_much_in_it_is_one_sentence(home, web, quick, monkeypatch, limit, most) -> None:
    web.content = few(studies=3)
    monkeypatch.setattr(dicomweb_service, limit, most)
    with pytest.raises(MetaDxError, match="page_size") as caught:
        fetch(home, web.address, options=quick)
    assert caught.value.code == "pacs_paging"


def test_no_log_line_holds_a_uid_or_a_secret(home, web, quick, monkeypatch, caplog) -> None:
    monkeypatch.setenv(USER_VARIABLE, "night")
    monkeypatch.setenv(PASSWORD_VARIABLE, "s3cret")
    web.trouble = once(half)
    with caplog.at_level(logging.DEBUG):
        fetch(home, web.address, options=quick)
    assert "s3cret" not in caplog.text and "1.2.1" not in caplog.text


def test_a_study_that_lists_without_end_over_its_series_is_not_heard_out(
    home, web, quick, monkeypatch
) -> None:
    first, second = few(studies=2).values()
    web.content = {"1.2.1": {**first, **second}}
    monkeypatch.setattr(dicomweb_service, "MOST_MATCHES", 5)
    with pytest.raises(MetaDxError) as caught:
        fetch(home, web.address, options=quick)
    assert caught.value.code == "pacs_paging"
    monkeypatch.setattr(dicomweb_service, "MOST_MATCHES", 6)
    assert fetch(home, web.address, options=quick).fetched == 6
