"""A DICOMweb service: one request and what is the matter with its answer, and searching by QIDO-RS, page by page."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from meta_dx.dicom.pacs.address import DicomWebAddress
from meta_dx.dicom.pacs.archive import LISTING_BYTES, MOST_MATCHES, FetchFailure, attempts
from meta_dx.dicom.pacs.credentials import Credentials
from meta_dx.dicom.pacs.dicom_json import TAGS, Entry, entries
from meta_dx.dicom.pacs.http_session import session_of, within
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.errors import MetaDxError

if TYPE_CHECKING:
    import requests

_CHUNK = 1 << 20
_MOST_IN_ONE_ANSWER = 100_000  # matches; a page has 10,000 at most, but some servers send everything at once
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509})

FOR_NOW = frozenset(
    {FetchFailure.UNAVAILABLE, FetchFailure.CUT_OFF, FetchFailure.NOT_SENT, FetchFailure.NOT_DICOM}
)


class UnwellError(Exception):
    """A request that came to nothing.

    Parameters
    ----------
    failure : FetchFailure
        Why.
    retry_after : float
        How long the server asks to be left alone, in seconds.
    """

    def __init__(self, failure: FetchFailure, retry_after: float = 0.0) -> None:
        super().__init__(failure.value)
        self.failure, self.retry_after = failure, retry_after


class DicomWebService:
    """A DICOMweb service with its session.

    Parameters
    ----------
    address : DicomWebAddress
        The service.
    options : PacsOptions
        Section ``[pacs]``.
    credentials : Credentials
        The login; sent to this server only.

    Raises
    ------
    MetaDxError
        ``no_ca_file``.
    """

    def __init__(self, address: DicomWebAddress, options: PacsOptions, credentials: Credentials) -> None:
        self._address, self._options = address, options
        self._session = session_of(options, credentials)

    def close(self) -> None:
        """End the connections."""
        self._session.close()

    def _search(
        self, path: str, asked: dict[str, str], fields: Sequence[str], expected: int | None = None
    ) -> Iterator[Entry]:
        """Yield every match once, page by page, whatever the server makes of limit and offset.

        How many are ``expected`` saves the question for a page behind the last one, and is no more than a hint: some
        servers count too few.
        """
        size = self._options.page_size
        parameters: list[tuple[str, str]] = [(name, value) for name, value in asked.items() if value]
        parameters += [("includefield", TAGS[name]) for name in fields]
        seen: set[str] = set()
        offset = 0
        while True:
            page, more = self._page(path, [*parameters, ("limit", str(size)), ("offset", str(offset))])
            fresh = [entry for entry in page if entry.key not in seen]
            full = more or len(page) == size
            if not fresh:
                if page and full and len(seen) != expected:
                    raise self._error(
                        "pacs_paging",
                        "sends the same page again: set [pacs] page_size above its number of matches",
                    )
                return
            for entry in fresh:
                if entry.key not in seen:
                    seen.add(entry.key)
                    yield entry
            self._require_bounded(len(seen))
            if len(seen) == expected and not full:
                return
            offset += len(page)

    def _require_bounded(self, matches: int) -> None:
        if matches > MOST_MATCHES:
            raise self._error("pacs_paging", "lists more than a million matches: narrow the filters down")

    def _page(self, path: str, parameters: list[tuple[str, str]]) -> tuple[list[Entry], bool]:
        failure = FetchFailure.UNAVAILABLE
        for attempt in attempts(self._options):
            deadline = time.monotonic() + self._options.instance_seconds
            try:
                with self._answer(path, parameters, "application/dicom+json") as answer:
                    return _entries(pieces(answer, deadline)), answer.headers.get("Warning", "").startswith(
                        "299"
                    )
            except UnwellError as fault:
                attempt.retry_after, failure = fault.retry_after, fault.failure
                if failure not in FOR_NOW:
                    break
        if failure is FetchFailure.REFUSED:
            raise self._error("pacs_refused", "refuses the query: check path and filters of the address")
        if failure is FetchFailure.GONE and path == "/studies":
            raise self._error("pacs_no_service", "has no DICOMweb service under this path: check the address")
        if failure is FetchFailure.GONE:
            return [], False  # deleted since it was listed
        if failure is FetchFailure.TOO_LARGE:
            raise self._error(
                "pacs_paging",
                f"answers one query with more than {LISTING_BYTES >> 20} MiB or {_MOST_IN_ONE_ANSWER:,} matches: "
                "set [pacs] page_size lower, or narrow the filters down",
            )
        if failure in (FetchFailure.UNAVAILABLE, FetchFailure.CUT_OFF):
            raise self._error("pacs_unreachable", "cannot be reached, or is too busy: try again later")
        raise self._error(
            "pacs_answer", "does not answer with a list of DICOM JSON: check the path of the address"
        )

    @contextmanager
    def _answer(
        self, path: str, parameters: list[tuple[str, str]], accept: str
    ) -> Iterator[requests.Response]:
        """Ask for something; answers that are none come out as :class:`UnwellError`, too."""
        asked = urlencode(parameters, quote_via=quote, safe="*?")
        with self._exchange("GET", path, params=asked, headers={"Accept": accept}) as answer:
            self._judge(answer, searching=path == "/studies" or bool(parameters))
            yield answer

    @contextmanager
    def _exchange(self, method: str, path: str, **request: Any) -> Iterator[requests.Response]:
        """Send one request; connections that fail come out as :class:`UnwellError`."""
        import requests

        trouble: Exception | None = None
        try:
            with self._session.request(
                method,
                self._address.url + path,
                timeout=(self._options.connect_seconds, self._options.read_seconds),
                allow_redirects=False,  # the login goes to the server that the user named, and to no other
                stream=True,
                **request,
            ) as answer:
                yield answer
                return
        except requests.exceptions.SSLError:
            trouble = self._error(
                "pacs_tls", "has no certificate that we trust: name its authority in [pacs] ca_file"
            )
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
            trouble = UnwellError(FetchFailure.CUT_OFF)
        except requests.RequestException:
            trouble = UnwellError(FetchFailure.UNAVAILABLE)
        # Outside of the handler: the library's errors hold the address with UIDs, and would travel along.
        raise trouble

    def _judge(self, answer: requests.Response, *, searching: bool) -> None:
        status = answer.status_code
        if status in (200, 204, 206):
            return
        if status == 401 or (status == 403 and searching):
            raise self._error(
                "pacs_credentials",
                f"refuses the login ({status}): check the file of [pacs] credentials, or META_DX_PACS_TOKEN, "
                "META_DX_PACS_USER and META_DX_PACS_PASSWORD",
            )
        if 300 <= status < 400:
            raise self._error("pacs_redirect", "sends us to another address: write that one as the source")
        if status in _BUSY or status >= 500:
            raise UnwellError(FetchFailure.UNAVAILABLE, _seconds(answer.headers.get("Retry-After", "")))
        raise UnwellError(FetchFailure.GONE if status in (404, 410) else FetchFailure.REFUSED)

    def _error(self, code: str, what: str) -> MetaDxError:
        return MetaDxError(code, f"The archive {self._address.host} {what}.")


def _entries(chunks: Iterable[bytes]) -> list[Entry]:
    found = []
    try:
        for entry in entries(_listing(chunks)):
            found.append(entry)
            if len(found) > _MOST_IN_ONE_ANSWER:
                raise UnwellError(FetchFailure.TOO_LARGE)
    except ValueError:
        raise UnwellError(FetchFailure.NOT_DICOM) from None  # the fault holds what was sent
    return found


def _listing(chunks: Iterable[bytes]) -> Iterator[bytes]:
    left = LISTING_BYTES
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise UnwellError(FetchFailure.TOO_LARGE)
        yield chunk


def pieces(answer: requests.Response, deadline: float) -> Iterator[bytes]:
    """Pass the body on as it comes until the time is up.

    ``iter_content`` would wait until a whole chunk is there, and a server that sends a byte a minute never runs
    into a time-out, neither in the body nor in the lengths and trailers between its chunks.
    """
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    with within(deadline - time.monotonic(), answer.raw.shutdown):
        while True:
            try:
                piece = answer.raw.read1(_CHUNK, decode_content=True)
            except ReadTimeoutError:
                raise UnwellError(FetchFailure.UNAVAILABLE) from None
            except HTTPError:
                raise UnwellError(FetchFailure.CUT_OFF) from None
            if time.monotonic() > deadline:  # then an end is none
                raise UnwellError(FetchFailure.CUT_OFF)
            if not piece:
                return
            yield piece


def _seconds(retry_after: str) -> float:
    if retry_after.isdecimal() and len(retry_after) < 8:
        return float(retry_after)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
