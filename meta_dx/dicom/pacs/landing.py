"""Where fetched and received files land: beside their place until complete, then visible by one rename."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from meta_dx.home import Home, storage_faults


class TooLargeError(Exception):
    """A file has grown beyond the limit for one file."""


class Landing:
    """One landing place of a home, for its owner only.

    Parameters
    ----------
    home : Home
        The home; the files lie in ``private/incoming``, because what is fetched holds identities.
    name : str
        A name of our own, never one that a server chose.
    max_bytes : int
        Limit of one file.
    """

    def __init__(self, home: Home, name: str, max_bytes: int) -> None:
        root = home.private / "incoming"
        self.folder = root / name
        # Ingest takes every file that it finds in the folder, so half a file must lie outside.
        self._unfinished = root / f"{name}.unfinished"
        self.max_bytes = max_bytes
        for folder in (root, self.folder, self._unfinished):
            with storage_faults(folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(self) -> PartialFile:
        """Begin a file."""
        return PartialFile(self._unfinished / uuid.uuid4().hex, self.folder, self.max_bytes)

    def clear_unfinished(self) -> None:
        """Remove what a process that died left half-written; only while nobody else writes here."""
        with storage_faults(self._unfinished):
            shutil.rmtree(self._unfinished)
            self._unfinished.mkdir(mode=0o700)


class PartialFile:
    """A file that is being written.

    Parameters
    ----------
    path : Path
        Where it lies until it is complete.
    folder : Path
        Where it belongs.
    max_bytes : int
        Its limit.
    """

    def __init__(self, path: Path, folder: Path, max_bytes: int) -> None:
        self._path, self._folder, self._limit = path, folder, max_bytes
        self._stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises
        ------
        TooLargeError
            The file would pass the limit.
        OSError
            The disk is full, or another fault of the machine.
        """
        self.size += len(data)
        if self.size > self._limit:
            raise TooLargeError
        self._stream.write(data)

    def begins_like_dicom(self) -> bool:
        """Tell whether the file has DICOM's preamble and prefix."""
        self._stream.flush()
        with self._path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"

    def keep(self, name: str, *, flush: bool = False) -> None:
        """Make the file visible under a name; with ``flush`` it survives a power cut from here on."""
        self._stream.flush()
        if flush:
            os.fsync(self._stream.fileno())
        self._stream.close()
        self._path.replace(self._folder / name)
        if flush:
            descriptor = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def drop(self) -> None:
        """Remove the file, if it has not been kept."""
        try:
            self._stream.close()
        except OSError:  # what could not be written any more is not wanted either
            pass
        self._path.unlink(missing_ok=True)
