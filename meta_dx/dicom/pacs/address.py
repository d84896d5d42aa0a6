"""Addresses of archives, as they stand in ``[cohort] sources`` and on the command line.

``dicomweb+https://host[:port]/path?modality=CT&from=2024-01-01``, ``dimse://AET@host:port?…`` and ``received:``
(what ``meta-dx receive`` took in). An address never holds a secret.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, parse_qsl, urlsplit

from meta_dx.dicom.pacs.options import PacsOptions, is_ae_title
from meta_dx.errors import MetaDxError

RECEIVED = "received:"
_SCHEMES = ("dicomweb+https", "dicomweb+http", "dimse", "dimse+tls")
_MODALITY = re.compile(r"[A-Z0-9_]{1,16}")
_BODY_PART = re.compile(r"[A-Z0-9_ *?-]{1,16}")
_RELATIVE = re.compile(r"-(\d{1,5})d")
_FORMS = (
    "written dicomweb+https://host/path?modality=CT&from=2024-01-01, dimse://AET@host:port?… or received: "
    "(docs/pacs.md)"
)


@dataclass(frozen=True)
class Filters:
    """Which studies and series of an archive are wanted; what is not named is not restricted.

    Parameters
    ----------
    modalities : tuple of str
        Any of these, of the series.
    first, last : str
        Study dates, both included: ``YYYY-MM-DD``, or ``-30d`` for thirty days ago.
    body_part : str
        Of the series; upper case, ``*`` and ``?`` stand for anything.
    description : str
        Of the study; found anywhere in it unless it holds ``*`` or ``?``.
    """

    modalities: tuple[str, ...] = ()
    first: str = ""
    last: str = ""
    body_part: str = ""
    description: str = ""

    def dates(self, today: date | None = None) -> str:
        """Return the range as DICOM writes it (``20240101-20241231``), empty without one."""
        day = today or datetime.now(UTC).date()
        first, last = (_day(text, day) for text in (self.first, self.last))
        return f"{first}-{last}" if first or last else ""

    def pattern(self) -> str:
        """Return the description as a pattern of DICOM, empty without one."""
        text = self.description
        return text if not text or set(text) & set("*?") else f"*{text}*"

    def takes_study(self, study_date: str, description: str) -> bool:
        """Check what the server says of a study, for servers that overlook a filter or match more than it says."""
        first, _, last = self.dates().partition("-")
        if re.fullmatch(r"\d{8}", study_date) and not (first or study_date) <= study_date <= (
            last or study_date
        ):
            return False
        return not self.description or not description or _matches(description, self.pattern())

    def takes_series(self, modality: str, body_part: str) -> bool:
        """Check what the server says of a series; what it does not say, it has matched itself."""
        if self.modalities and modality and modality not in self.modalities:
            return False
        return not self.body_part or not body_part or _matches(body_part, self.body_part)


@dataclass(frozen=True)
class DicomWebAddress:
    """A DICOMweb service.

    Parameters
    ----------
    url : str
        Its root, without a slash at the end.
    filters : Filters
        What is wanted of it.
    """

    url: str
    filters: Filters = Filters()

    @property
    def server(self) -> str:
        """The server alone: two addresses with other filters share what has been fetched."""
        return f"dicomweb:{self.url}"

    @property
    def host(self) -> str:
        """Host, with the port if one is named."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True)
class DimseAddress:
    """A DIMSE archive.

    Parameters
    ----------
    ae_title : str
        How the archive calls itself.
    host : str
        Where it is.
    port : int
        Its port.
    tls : bool
        Whether it speaks TLS.
    move_to : str
        With C-MOVE: the title under which the archive knows our listener. Empty: C-GET, which needs no
        listener.
    filters : Filters
        What is wanted of it.
    """

    ae_title: str
    host: str
    port: int
    tls: bool = False
    move_to: str = ""
    filters: Filters = Filters()

    @property
    def server(self) -> str:
        """The server alone: two addresses with other filters share what has been fetched."""
        return f"dimse:{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True)
class ReceivedAddress:
    """What was sent to ``meta-dx receive``."""

    @property
    def server(self) -> str:
        """Name of the one landing place that is not of an archive."""
        return "received"


Address = DicomWebAddress | DimseAddress | ReceivedAddress


def is_address(source: object) -> bool:
    """Tell an address from a folder."""
    scheme = str(source).partition(":")[0].lower()
    return str(source) == RECEIVED or (scheme.startswith(("dicomweb", "dimse")) and "://" in str(source))


def parse_address(text: str, options: PacsOptions | None = None) -> Address:
    """Read an address.

    Parameters
    ----------
    text : str
        As the user wrote it.
    options : PacsOptions, optional
        Section ``[pacs]``; decides whether DICOMweb without TLS is allowed.

    Returns
    -------
    DicomWebAddress, DimseAddress or ReceivedAddress

    Raises
    ------
    MetaDxError
        ``bad_source``; ``secret_in_address`` (the address is not repeated then); ``insecure_source``.
    """
    if text == RECEIVED:
        return ReceivedAddress()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as fault:
        raise MetaDxError("bad_source", f"A source cannot be read as an address: it is {_FORMS}.") from fault
    if parts.password is not None or (parts.username is not None and parts.scheme.startswith("dicomweb")):
        raise MetaDxError(
            "secret_in_address",
            f"The source at {parts.hostname} holds a login: take it out of the address, which is stored and logged, "
            "and put it into the file of [pacs] credentials or the environment (docs/pacs.md).",
        )
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.fragment:
        raise MetaDxError("bad_source", f"The source '{parts.scheme}://…' is no address: it is {_FORMS}.")
    if parts.scheme.startswith("dicomweb"):
        return _dicomweb(parts, options or PacsOptions())
    return _dimse(parts, port)


def _dicomweb(parts: SplitResult, options: PacsOptions) -> DicomWebAddress:
    scheme = parts.scheme.removeprefix("dicomweb+")
    if scheme == "http" and not (is_loopback(parts.hostname or "") or options.allow_http):
        raise MetaDxError(
            "insecure_source",
            f"The source at {parts.hostname} is asked for without TLS: write dicomweb+https://, or set "
            "[pacs] allow_http = true if the network between is yours alone.",
        )
    filters, _ = _filters(parts, ())
    return DicomWebAddress(f"{scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}", filters)


def _dimse(parts: SplitResult, port: int | None) -> DimseAddress:
    title = parts.username or ""
    if not is_ae_title(title) or port is None or parts.path.strip("/"):
        raise MetaDxError(
            "bad_source",
            f"The source at {parts.hostname} lacks its AE title or port, or has a path: "
            "it is written dimse://AET@host:port?modality=CT (docs/pacs.md).",
        )
    filters, rest = _filters(parts, ("move_to",))
    move_to = rest.get("move_to", "")
    if move_to and not is_ae_title(move_to):
        raise _bad(parts, "move_to", "the AE title of our listener, as the archive knows it")
    if move_to and parts.scheme == "dimse+tls":
        raise MetaDxError(
            "insecure_source",
            f"The source at {parts.hostname} asks for TLS and names 'move_to', whose listener speaks none: leave "
            "move_to out to use C-GET over TLS, or write dimse:// if the network between is yours alone.",
        )
    return DimseAddress(title, parts.hostname or "", port, parts.scheme == "dimse+tls", move_to, filters)


def _filters(parts: SplitResult, others: tuple[str, ...]) -> tuple[Filters, dict[str, str]]:
    allowed = ("modality", "from", "to", "body_part", "description", *others)
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed:
            raise MetaDxError(
                "bad_source",
                f"The source at {parts.hostname} has an unknown filter: allowed are {', '.join(allowed)}.",
            )
        found.setdefault(name, []).append(value.strip())
    for name, values in found.items():
        if name != "modality" and len(values) > 1:
            raise _bad(parts, name, "one value")
    modalities = tuple(sorted({one for text in found.get("modality", ()) for one in text.upper().split(",")}))
    filters = Filters(
        modalities,
        found.get("from", [""])[0],
        found.get("to", [""])[0],
        found.get("body_part", [""])[0].upper(),
        found.get("description", [""])[0],
    )
    _check(filters, parts)
    return filters, {name: found[name][0] for name in others if name in found}


def _check(filters: Filters, parts: SplitResult) -> None:
    if not all(_MODALITY.fullmatch(one) for one in filters.modalities):
        raise _bad(parts, "modality", "codes such as CT or CR,DX")
    try:
        first, _, last = filters.dates().partition("-")
    except (ValueError, OverflowError) as fault:
        raise _bad(parts, "from or to", "a day such as 2024-01-31, or -30d for thirty days ago") from fault
    if first and last and first > last:
        raise _bad(parts, "from", "a day before 'to'")
    if filters.body_part and not _BODY_PART.fullmatch(filters.body_part):
        raise _bad(parts, "body_part", "at most 16 letters, as CHEST or ABD*")
    if len(filters.description) > 64 or not filters.description.isprintable() or "\\" in filters.description:
        raise _bad(parts, "description", "at most 64 characters")


def _bad(parts: SplitResult, name: str, allowed: str) -> MetaDxError:
    return MetaDxError(
        "bad_source", f"The source at {parts.hostname} has a wrong '{name}': allowed is {allowed}."
    )


def _day(text: str, today: date) -> str:
    relative = _RELATIVE.fullmatch(text)
    if not text:
        return ""
    day = today - timedelta(days=int(relative[1])) if relative else date.fromisoformat(text)
    return day.strftime("%Y%m%d")


def _matches(text: str, pattern: str) -> bool:
    return fnmatchcase(text.strip().upper(), pattern.upper().replace("[", "[[]"))


def is_loopback(host: str) -> bool:
    """Tell whether a host can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
