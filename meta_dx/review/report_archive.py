"""The archive of ``[review] archive``, in which reports are stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO

from meta_dx.dicom.pacs.address import DicomWebAddress, DimseAddress, parse_address
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.dicom.pacs.storing import Receipt, deliver, open_store
from meta_dx.errors import MetaDxError


def archive_address(text: str, options: PacsOptions) -> DicomWebAddress | DimseAddress:
    """Read the address of an archive that reports are to be stored in.

    Parameters
    ----------
    text : str
        ``dicomweb+https://host/path`` or ``dimse://AET@host:port``, as a source is written, without filters.
    options : PacsOptions
        Section ``[pacs]``.

    Raises
    ------
    MetaDxError
        ``bad_source``, ``secret_in_address`` or ``insecure_source``.
    """
    address = parse_address(text, options)
    if not isinstance(address, DicomWebAddress | DimseAddress) or "?" in text:
        raise MetaDxError(
            "bad_source",
            "The archive for reports is written dicomweb+https://host/path or dimse://AET@host:port, without filters.",
        )
    return address


class ReportArchive:
    """The archive that reports are stored in.

    Parameters
    ----------
    address : DicomWebAddress or DimseAddress
        Where it is.
    options : PacsOptions
        Section ``[pacs]``: logins, certificates, our AE title.
    """

    def __init__(self, address: DicomWebAddress | DimseAddress, options: PacsOptions) -> None:
        self._address, self._options = address, options
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What the records call it: the server, without any login."""
        return self._address.server

    @property
    def label(self) -> str:
        """What people call it."""
        if isinstance(self._address, DicomWebAddress):
            return self._address.host
        return f"{self._address.ae_title} ({self._address.host}:{self._address.port})"

    def take(self, content: bytes) -> Receipt:
        """Store an instance, and ask whether it is there (:func:`meta_dx.dicom.pacs.storing.deliver`).

        Raises
        ------
        MetaDxError
            ``bad_credentials``, ``open_credentials`` or ``no_ca_file``.
        """
        with closing(open_store(self._address, self._options)) as store:
            return deliver(store, content)

    def shows(self, content: bytes) -> bool:
        """Ask whether an instance is there.

        Raises
        ------
        MetaDxError
            As :meth:`take`, and where the archive cannot be asked.
        """
        from pydicom import dcmread

        with closing(open_store(self._address, self._options)) as store:
            return store.holds(dcmread(BytesIO(content)))

    def is_sending(self, study: str) -> bool:
        """Tell whether the report of a case is on its way just now."""
        with self._lock:
            return study in self._busy

    @contextmanager
    def alone(self, study: str) -> Iterator[None]:
        """Keep a second click from sending what the first one is just sending.

        Raises
        ------
        MetaDxError
            ``being_stored``.
        """
        with self._lock:
            if study in self._busy:
                raise MetaDxError(
                    "being_stored",
                    "This report is being sent just now: load the page again in a few seconds.",
                )
            self._busy.add(study)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(study)
