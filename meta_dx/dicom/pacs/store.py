"""C-STORE as we receive it: streamed into a landing place, never parsed, never under a name of the sender.

pynetdicom can write a received data set to a temporary file instead of decoding it, but chooses the folder itself,
knows no limit and leaves the file behind when an association breaks; so it is given our file instead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from meta_dx.dicom.pacs.landing import Landing, PartialFile, TooLargeError

if TYPE_CHECKING:
    from pydicom.uid import UID

log = logging.getLogger("meta_dx")

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
_PDU_BYTES = 1 << 17
_ONE_LANDING = threading.RLock()

Kept = Callable[[str, PartialFile], int]
"""Called with the SOP instance UID that the sender names and the complete file; returns the status to answer."""


class ReceivedFile:
    """Stands where pynetdicom expects its temporary file, and remembers a fault until the answer is due.

    To raise in the middle would end the association without a word; the sender shall hear what is wrong.

    Parameters
    ----------
    landing : Landing
        Where the file is written.
    """

    def __init__(self, landing: Landing) -> None:
        self.partial: PartialFile | None = None
        self.fault: Exception | None = None
        self.name = ""
        self.file = self  # pynetdicom flushes the file inside of its temporary file
        try:
            self.partial = landing.begin()
        except OSError as fault:
            self.fault = fault

    def write(self, data: bytes) -> None:
        """Append bytes; after a fault they are thrown away."""
        if self.partial is None or self.fault is not None:
            return
        try:
            self.partial.write(data)
        except (OSError, TooLargeError) as fault:
            self.fault = fault
            self.partial.drop()

    def flush(self) -> None:
        """Nothing: the file is flushed when it is complete."""

    def close(self) -> None:
        """Remove the file unless it was kept."""
        if self.partial is not None:
            self.partial.drop()

    def __del__(self) -> None:
        self.close()  # the association broke in mid-transfer: nobody else still knows the file


@contextmanager
def streaming_to(landing: Landing) -> Iterator[None]:
    """Have everything that this process receives by C-STORE written into a landing place; one at a time."""
    from pynetdicom import _config, dimse_messages

    with _ONE_LANDING:
        before = _config.STORE_RECV_CHUNKED_DATASET, dimse_messages.NamedTemporaryFile
        _config.STORE_RECV_CHUNKED_DATASET = True
        dimse_messages.NamedTemporaryFile = lambda *_, **__: ReceivedFile(landing)
        try:
            yield
        finally:
            _config.STORE_RECV_CHUNKED_DATASET, dimse_messages.NamedTemporaryFile = before


def stored(event: Any, kept: Kept) -> int:
    """Answer one C-STORE request, a handler of pynetdicom.

    Parameters
    ----------
    event : pynetdicom.events.Event
        The request, received inside :func:`streaming_to`.
    kept : callable
        Keeps the file.

    Returns
    -------
    int
        Status: success only when the file is in its place.
    """
    file = getattr(event.request, "_dataset_file", None)
    if not isinstance(file, ReceivedFile):  # a request without a data set
        return CANNOT_UNDERSTAND
    try:
        if file.fault is None and file.partial is not None:
            return kept(str(event.request.AffectedSOPInstanceUID), file.partial)
    except OSError as fault:
        file.fault = fault
    finally:
        file.close()
    what = "it is larger than the limit" if isinstance(file.fault, TooLargeError) else "the disk refused"
    log.warning("A sent instance was not taken (%s): the sender has been told.", what)
    return OUT_OF_RESOURCES


def quiet_entity(ae_title: str, connect_seconds: float, read_seconds: float) -> Any:
    """Make an application entity of pynetdicom that logs nothing: its lines hold UIDs and names of patients."""
    from pynetdicom import AE, _config

    logger = logging.getLogger("pynetdicom")
    logger.propagate = False
    logger.setLevel(logging.CRITICAL + 1)
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    entity = AE(ae_title)
    entity.connection_timeout = entity.acse_timeout = connect_seconds
    entity.dimse_timeout = entity.network_timeout = read_seconds
    entity.maximum_pdu_size = _PDU_BYTES
    entity.maximum_associations = 1 << 16  # Places counts them
    return entity


def storage_classes() -> list[UID]:
    """Return every SOP class of the storage service that pynetdicom knows."""
    from pynetdicom import AllStoragePresentationContexts

    return [context.abstract_syntax for context in AllStoragePresentationContexts]
