"""Storing one of our own instances in an archive, by STOW-RS or C-STORE, and asking afterwards whether it is there.

What an archive answers to the sending is not believed: some say that all is well and store nothing, others break the
connection off and have stored it. Only a query (QIDO-RS, C-FIND) that shows the instance counts as stored.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

from meta_dx.dicom.pacs.address import Address, DicomWebAddress, DimseAddress
from meta_dx.dicom.pacs.archive import FetchFailure
from meta_dx.dicom.pacs.credentials import credentials_of
from meta_dx.dicom.pacs.dicomweb_service import DicomWebService, UnwellError, pieces
from meta_dx.dicom.pacs.dimse_service import DimseService
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.dicom.pacs.store import SUCCESS
from meta_dx.errors import MetaDxError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PAUSES = (0.0, 0.5, 1.5, 3.0)  # seconds before each look: archives file what comes in a little later
_ANSWER_BYTES = 1 << 20
_WARNINGS = (0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007)  # stored, with something to say about it
_REASONS = {
    0x0110: "it failed while working on it",
    0x0111: "it says that it has this instance already",
    0x0117: "it takes the UID of the instance for invalid",
    0x0122: "it does not store structured reports",
    0x0124: "it has not authorised us to store",
    0xA700: "it is out of resources",
    0xA900: "it says that the content does not fit the class of the instance",
    0xC000: "it does not understand the content",
}
_OPEN_END = (FetchFailure.UNAVAILABLE, FetchFailure.CUT_OFF)


class Delivery(StrEnum):
    """How it ended.

    ``stored``: a query shows it; ``unconfirmed``: it was sent, no query shows it; ``refused``: the archive has said
    so; ``not_sent``: the archive could not even be asked.
    """

    STORED = "stored"
    UNCONFIRMED = "unconfirmed"
    REFUSED = "refused"
    NOT_SENT = "not_sent"


@dataclass(frozen=True)
class Receipt:
    """What became of an instance.

    Parameters
    ----------
    delivery : Delivery
        How it ended.
    why : str
        One sentence; empty where there is nothing to say.
    sent : bool
        Whether anything was sent: not when the archive had it already, or did not let us ask.
    """

    delivery: Delivery
    why: str = ""
    sent: bool = False


class RefusedError(Exception):
    """The archive has said that it does not take the instance, and why."""


class BrokenOffError(Exception):
    """The archive has not answered: it may have the instance or not."""


class Store(Protocol):
    """An archive that takes instances."""

    def holds(self, instance: Dataset) -> bool:
        """Ask whether the archive shows an instance."""

    def send(self, instance: Dataset, content: bytes) -> None:
        """Send an instance once."""

    def close(self) -> None:
        """End the connections."""


class StowStore(DicomWebService):
    """A DICOMweb archive: STOW-RS stores, QIDO-RS shows."""

    def holds(self, instance: Dataset) -> bool:
        """Ask whether the archive shows an instance under its study and series."""
        path = f"/studies/{instance.StudyInstanceUID}/series/{instance.SeriesInstanceUID}/instances"
        wanted = str(instance.SOPInstanceUID)
        shown = self._search(path, {"SOPInstanceUID": wanted}, ("SOPInstanceUID",))
        return any(entry.value("SOPInstanceUID") == wanted for entry in shown)

    def send(self, instance: Dataset, content: bytes) -> None:
        """Send an instance once.

        Raises
        ------
        RefusedError, BrokenOffError, MetaDxError
        """
        boundary = f"meta_dx-{secrets.token_hex(16)}"
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        body = head + content + f"\r\n--{boundary}--\r\n".encode()
        try:
            with self._exchange("POST", "/studies", data=body, headers=headers) as answer:
                if answer.status_code == 403:
                    raise RefusedError("our login may not store there (403)")
                if answer.status_code not in (202, 400, 409, 415):
                    self._judge(answer, searching=False)
                reasons = _failures(_body(pieces(answer, time.monotonic() + self._options.instance_seconds)))
                if reasons or answer.status_code >= 400:
                    raise RefusedError(_words(reasons[0] if reasons else None, answer.status_code))
        except UnwellError as fault:
            if fault.failure in _OPEN_END:
                raise BrokenOffError from None
            raise RefusedError("it has no service for storing under this address") from None


class CStore(DimseService):
    """A DIMSE archive: C-STORE stores, C-FIND shows."""

    def holds(self, instance: Dataset) -> bool:
        """Ask whether the archive shows an instance under its study and series."""
        names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        shown = self._find("IMAGE", {name: str(instance[name].value) for name in names})
        return any(entry.value("SOPInstanceUID") == instance.SOPInstanceUID for entry in shown)

    def send(self, instance: Dataset, content: bytes) -> None:
        """Send an instance once.

        Raises
        ------
        RefusedError, BrokenOffError, MetaDxError
        """
        syntax = str(instance.file_meta.TransferSyntaxUID)
        association = self._associate(
            [(str(instance.SOPClassUID), syntax)], missing="does not take structured reports from us"
        )
        try:
            status = association.send_c_store(instance).get("Status")
        finally:
            if association.is_established:
                association.release()
        if status is None and association.is_aborted:
            title = self._options.ae_title
            raise BrokenOffError(
                f"The archive broke off without an answer: it may not allow {title} to store."
            )
        if status is None:
            raise BrokenOffError
        if status != SUCCESS and status not in _WARNINGS:
            raise RefusedError(_words(status))


def open_store(address: Address, options: PacsOptions) -> Store:
    """Open an archive for storing.

    Parameters
    ----------
    address : DicomWebAddress or DimseAddress
        The archive.
    options : PacsOptions
        Section ``[pacs]``; somebody waits for the answer, so pauses and repetitions are cut short.

    Raises
    ------
    MetaDxError
        ``bad_credentials``, ``open_credentials`` or ``no_ca_file``.
    """
    brisk = replace(
        options,
        retries=min(options.retries, 1),
        connect_seconds=min(options.connect_seconds, 5.0),
        read_seconds=min(options.read_seconds, 30.0),
        instance_seconds=min(options.instance_seconds, 60.0),
        max_pause_seconds=min(options.max_pause_seconds, 2.0),
    )
    if isinstance(address, DicomWebAddress):
        return StowStore(address, brisk, credentials_of(address, brisk))
    if isinstance(address, DimseAddress):
        return CStore(address, brisk)
    raise MetaDxError("bad_source", "Reports are stored in an archive, not in what we receive ourselves.")


def deliver(store: Store, content: bytes, pause: Callable[[float], None] = time.sleep) -> Receipt:
    """Store an instance unless the archive shows it already, and ask whether it does then.

    Doing it again is harmless: the instance keeps its UID, and what the archive shows is not sent again.

    Parameters
    ----------
    store : Store
        The archive.
    content : bytes
        A DICOM file of our own making.
    pause : callable
        Waits some seconds.

    Returns
    -------
    Receipt
    """
    from pydicom import dcmread

    instance = dcmread(BytesIO(content))
    try:
        if store.holds(instance):
            return Receipt(Delivery.STORED)
    except MetaDxError as fault:
        return Receipt(Delivery.NOT_SENT, str(fault))
    refused, why = False, ""
    try:
        store.send(instance, content)
    except RefusedError as fault:
        refused, why = True, f"{str(fault)[:1].upper()}{str(fault)[1:]}."
    except BrokenOffError as fault:
        why = str(fault) or "The archive was too busy to answer, or the connection broke."
    except MetaDxError as fault:
        refused, why = True, str(fault)
    shown, trouble = _look(store, instance, _PAUSES[:1] if refused else _PAUSES, pause)
    if shown:
        return Receipt(Delivery.STORED, sent=True)
    if refused:
        return Receipt(Delivery.REFUSED, why, sent=True)
    return Receipt(Delivery.UNCONFIRMED, why or trouble, sent=True)


def _look(
    store: Store, instance: Dataset, pauses: tuple[float, ...], pause: Callable[[float], None]
) -> tuple[bool, str]:
    trouble = ""
    for seconds in pauses:
        if seconds:
            pause(seconds)
        try:
            if store.holds(instance):
                return True, ""
        except MetaDxError as fault:
            trouble = str(fault)
    return False, trouble


def _body(chunks: Iterable[bytes]) -> Any:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > _ANSWER_BYTES:
            return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None  # XML, or words: the query will tell


def _failures(answer: Any) -> list[int]:
    """Return the reasons (0008,1197) of the failed instances (0008,1198) that an answer to STOW-RS names."""
    found = answer[0] if isinstance(answer, list) and answer else answer
    failed = found.get("00081198") if isinstance(found, dict) else None
    items = failed.get("Value") if isinstance(failed, dict) else None
    reasons = []
    for item in items if isinstance(items, list) else ():
        reason = item.get("00081197") if isinstance(item, dict) else None
        values = reason.get("Value") if isinstance(reason, dict) else None
        number = values[0] if isinstance(values, list) and values else None
        reasons.append(number if isinstance(number, int) else 0)
    return [reason for reason in reasons if reason not in _WARNINGS]


def _words(code: int | None, status: int = 0) -> str:
    """Return in words why an instance was refused."""
    if code is None:
        return f"it does not say why ({status})"
    general = code & 0xFF00 if code >= 0xA000 else code
    general = 0xC000 if code & 0xF000 == 0xC000 else general
    return f"{_REASONS.get(general, 'it does not say why')} ({code:#06x})"
