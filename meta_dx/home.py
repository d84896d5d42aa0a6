"""The home: the one folder that holds every store of one cohort, and how files are written into it.

A step that dies leaves either the old thing or the new thing, never half of one: everything is written beside its
place first and renamed into it. The layout is listed in ``docs/architecture.md``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from meta_dx.errors import MetaDxError

DEFAULT_HOME = ".meta_dx"
_MARKER = "home.json"
_LAYOUT = 1
_SENTENCES = {
    errno.ENOSPC: ("disk_full", "the disk is full: free some space and run the same command again"),
    errno.EDQUOT: (
        "disk_full",
        "the disk quota is used up: free some space and run the same command again",
    ),
    errno.EROFS: ("read_only", "the file system is read-only: choose a writable folder with --home"),
    errno.EACCES: ("not_writable", "permission is denied: choose a folder that you may write to"),
    errno.EPERM: ("not_writable", "permission is denied: choose a folder that you may write to"),
    errno.ENOTDIR: ("not_writable", "a file stands where a folder is needed: choose another folder"),
    errno.EEXIST: ("not_writable", "a file stands where a folder is needed: choose another folder"),
}


@dataclass(frozen=True)
class Home:
    """Where each store of one cohort lies.

    Use :meth:`open`; it creates the folder and refuses a home that belongs to another cohort.
    """

    root: Path

    @classmethod
    def open(cls, root: Path | str, cohort: str | None = None) -> Home:
        """Open or create a home.

        Parameters
        ----------
        root : Path or str
            The folder.
        cohort : str, optional
            Name of the cohort that is about to use it. A home belongs to the first cohort that named itself.

        Returns
        -------
        Home

        Raises
        ------
        MetaDxError
            ``home_of_another_cohort``, ``home_layout``, or a storage fault.
        """
        home = cls(Path(root).resolve())
        with storage_faults(home.root):
            home.root.mkdir(parents=True, exist_ok=True)
        marker = home.root / _MARKER
        known = json.loads(marker.read_text()) if marker.exists() else {"layout": _LAYOUT, "cohort": None}
        if known["layout"] != _LAYOUT:
            raise MetaDxError(
                "home_layout",
                f"The home {home.root} has layout {known['layout']}, this version writes {_LAYOUT}: "
                "use another --home.",
            )
        if cohort and known["cohort"] not in (None, cohort):
            raise MetaDxError(
                "home_of_another_cohort",
                f"The home {home.root} belongs to cohort '{known['cohort']}', not '{cohort}': "
                "give this cohort its own folder with --home or META_DX_HOME.",
            )
        if not marker.exists() or (cohort and known["cohort"] is None):
            write_json(marker, {**known, "cohort": cohort or known["cohort"]})
        return home

    @property
    def cohort(self) -> str | None:
        """Name of the cohort this home belongs to, if one has named itself."""
        name = json.loads((self.root / _MARKER).read_text())["cohort"]
        return None if name is None else str(name)

    def store(self, name: str) -> Path:
        """Return the folder of one store, created on first use (``private`` is for its owner only)."""
        folder = self.root / name
        with storage_faults(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700 if name == "private" else 0o777)
        return folder

    @property
    def private(self) -> Path:
        """The identity vault: surrogate and original ids, owner-only."""
        return self.store("private")

    @property
    def objects(self) -> Path:
        """Accepted instances under surrogate identities, content-addressed."""
        return self.store("objects")

    @property
    def catalog(self) -> Path:
        """Parquet tables, one folder per ingest batch."""
        return self.store("catalog")

    @property
    def images(self) -> Path:
        """Preprocessed, memory-mapped pictures, one folder per preprocessing."""
        return self.store("images")

    @property
    def splits(self) -> Path:
        """Frozen splits, versioned JSON."""
        return self.store("splits")

    @property
    def checkpoints(self) -> Path:
        """Weights while and after training, one folder per configuration hash."""
        return self.store("checkpoints")

    @property
    def features(self) -> Path:
        """Cached embeddings, one folder per encoder hash."""
        return self.store("features")

    @property
    def bundles(self) -> Path:
        """Immutable bundles, one folder per hash."""
        return self.store("bundles")

    @property
    def evaluations(self) -> Path:
        """Evaluation records and reports, one folder per bundle and protocol."""
        return self.store("evaluations")

    @property
    def validation(self) -> Path:
        """Great Expectations results and Data Docs."""
        return self.store("validation")

    @property
    def states(self) -> Path:
        """Adapted states, cached per bundle and support-set version."""
        return self.store("states")


@contextmanager
def storage_faults(where: Path) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk into one clear sentence.

    Parameters
    ----------
    where : Path
        What was being written; named in the message.

    Raises
    ------
    MetaDxError
        ``disk_full``, ``read_only`` or ``not_writable``; other errors pass unchanged.
    """
    try:
        yield
    except OSError as fault:
        known = storage_fault(fault, where)
        if known is None:
            raise
        raise known from fault


def storage_fault(fault: OSError, where: Path) -> MetaDxError | None:
    """Say in one sentence what the disk did when ``where`` was written; None when it was something else."""
    if fault.errno not in _SENTENCES:
        return None
    code, sentence = _SENTENCES[fault.errno]
    return MetaDxError(code, f"Cannot write {where}: {sentence}.")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never half of it."""
    with storage_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(path)
        try:
            with beside.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically (see :func:`write_bytes`)."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; dataclasses become objects."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False, default=_plain) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside its place and rename it into place when the block ends without an error.

    An existing folder at ``path`` wins: content there is immutable, and the new copy is thrown away.

    Parameters
    ----------
    path : Path
        The final place.

    Yields
    ------
    Path
        The temporary folder to fill.
    """
    beside = _beside(path)
    with storage_faults(path):
        beside.mkdir(parents=True)
        try:
            yield beside
            try:
                beside.rename(path)
            except OSError as fault:
                if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _beside(path: Path) -> Path:
    """Return a temporary name beside a path, and clear away what killed processes of this machine left there."""
    host = socket.gethostname().replace(".", "-")
    for left in path.parent.glob(f".{path.name}.{host}-*.tmp"):
        process = left.name.removesuffix(".tmp").rsplit(".", 1)[0].rsplit("-", 1)[1]
        if process.isdigit() and not Path(f"/proc/{process}").exists() and Path("/proc/self").exists():
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{host}-{os.getpid()}.{uuid.uuid4().hex}.tmp")


def fingerprint_of(value: Any, length: int = 16) -> str:
    """Hash any JSON-like value (dataclasses included) to a short stable name.

    Parameters
    ----------
    value : Any
        The value; keys are sorted, so their order does not matter.
    length : int
        Hexadecimal digits to keep.

    Returns
    -------
    str
        The first digits of the SHA-256 of the canonical JSON.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        # What lies within is turned when its turn comes: asdict would copy all of it first.
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
