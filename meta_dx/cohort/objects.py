"""The objects store: accepted instances under surrogate identities, named by the SHA-256 of their bytes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from meta_dx.errors import MetaDxError
from meta_dx.home import Home, storage_faults

_NAME = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = "unfinished"


class ObjectStore:
    """Content-addressed DICOM files: ``objects/ab/<sha256>.dcm``.

    Parameters
    ----------
    home : Home
        The home that owns the store.

    Notes
    -----
    A file appears under its name only when it is complete, so a process that dies leaves no half of one; the
    same content is stored once. Nothing here reaches the disk for certain until :meth:`flush`.
    """

    def __init__(self, home: Home) -> None:
        self._root = home.objects

    def put(self, data: bytes, name: str = "") -> str:
        """Store a complete DICOM file.

        Parameters
        ----------
        data : bytes
            The file.
        name : str, optional
            Its SHA-256, where that has been computed already.

        Returns
        -------
        str
            Its name: the SHA-256 of its bytes in hexadecimal.

        Raises
        ------
        MetaDxError
            A storage fault.
        """
        name = name or hashlib.sha256(data).hexdigest()
        path = self.path(name)
        with storage_faults(path):
            # A power cut before flush() can leave a file of the right length and the wrong content.
            if path.exists() and path.read_bytes() == data:
                return name
            unfinished = self._root / _UNFINISHED / uuid.uuid4().hex
            try:
                _write(unfinished, data)
                _rename(unfinished, path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        return name

    def read(self, name: str) -> Dataset:
        """Parse one object in this process; what is made of many goes through a reading process.

        Parameters
        ----------
        name : str
            As :meth:`put` returned it; column ``object`` of the instances table.

        Returns
        -------
        pydicom.dataset.Dataset
            Ready for :func:`meta_dx.dicom.pixels.physical_pixels`.

        Raises
        ------
        MetaDxError
            As :meth:`content`.
        """
        return dcmread(BytesIO(self.content(name)))

    def content(self, name: str) -> bytes:
        """Return the bytes of one object, the ones that were stored.

        Raises
        ------
        MetaDxError
            ``object_missing``, ``object_unreadable``, or ``object_damaged`` when the bytes are not the ones that were
            stored.
        """
        path = self.path(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError as fault:
            raise MetaDxError(
                "object_missing",
                f"The object {path} is missing: restore the home from a back-up or ingest anew.",
            ) from fault
        except OSError as fault:
            raise MetaDxError(
                "object_unreadable",
                f"The object {path} cannot be read ({fault.strerror}): make it readable and run again.",
            ) from fault
        if hashlib.sha256(data).hexdigest() != name:
            raise MetaDxError(
                "object_damaged",
                f"The object {path} has changed since it was stored: "
                "restore the home from a back-up, or ingest into a new --home.",
            )
        return data

    def path(self, name: str) -> Path:
        """Return where an object lies or would lie."""
        if not _NAME.fullmatch(name):
            raise ValueError("the name of an object is a SHA-256 in hexadecimal")
        return self._root / name[:2] / f"{name}.dcm"

    def remove(self, name: str) -> None:
        """Remove an object that no batch names."""
        path = self.path(name)
        with storage_faults(path):
            path.unlink(missing_ok=True)

    def flush(self) -> None:
        """Return when everything that was stored is on the disk."""
        os.sync()  # one call for the batch: an fsync for every object takes eight milliseconds each

    def clear_unfinished(self) -> None:
        """Remove what a process that died left half-written; only while nobody else writes."""
        shutil.rmtree(self._root / _UNFINISHED, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def _rename(unfinished: Path, path: Path) -> None:
    try:
        os.replace(unfinished, path)
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        os.replace(unfinished, path)
