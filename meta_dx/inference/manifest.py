"""The manifest of a bundle: the SHA-256 of each of its files, from which it also has its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from meta_dx.errors import MetaDxError

MANIFEST = "manifest.json"
#: What the manifest of one adapted network calls itself (:mod:`meta_dx.inference.adapted`); a bundle is of no kind.
ADAPTED = "adapted network"
_LAYOUT = 1
_ID_DIGITS = 16


def manifest_of(folder: Path) -> bytes:
    """Return the manifest of a folder's files: the SHA-256 of each, by its name in the folder."""
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    listed = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    return (json.dumps({"layout": _LAYOUT, "sha256": listed}, indent=2) + "\n").encode()


def identity(manifest: bytes) -> str:
    """Return the name of the bundle that has this manifest."""
    return hashlib.sha256(manifest).hexdigest()[:_ID_DIGITS]


def named_files(folder: Path, manifest: bytes) -> dict[str, str]:
    """Read a manifest: file name → SHA-256.

    Raises
    ------
    MetaDxError
        ``bundle_layout``, ``bundle_damaged``, or ``adapted_network`` where the folder holds one and is no bundle.
    """
    refuse_adapted(folder, manifest)
    try:
        read = json.loads(manifest)
        layout, listed = read["layout"], {str(name): str(digest) for name, digest in read["sha256"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise _damaged(folder, f"its {MANIFEST} cannot be read") from fault
    if layout != _LAYOUT:
        raise MetaDxError(
            "bundle_layout",
            f"The bundle {folder} has layout {layout}, not {_LAYOUT}: install the meta_dx that made it.",
        )
    for name in listed:
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name:
            raise _damaged(folder, f"its {MANIFEST} names a file outside of it")
    return listed


def refuse_adapted(folder: Path, manifest: bytes | None = None) -> None:
    """Refuse one adapted network where something is wanted that takes confirmed cases: a bundle, or a home.

    Parameters
    ----------
    folder : Path
        Named by the user.
    manifest : bytes, optional
        Content of its manifest; read from the folder if absent.

    Raises
    ------
    MetaDxError
        ``adapted_network``.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes() if manifest is None else manifest
        kind = json.loads(content).get("kind")
    except (OSError, ValueError, AttributeError):
        return
    if kind == ADAPTED:
        raise MetaDxError(
            "adapted_network",
            f"{folder} is one network that was adapted once, no bundle: its confirmed cases are in its weights and "
            "none can be added; adapt one anew with 'meta-dx export-adapted', or name a bundle of 'meta-dx export', "
            "whose home takes cases with 'meta-dx support add'.",
        )


def verify(folder: Path, listed: dict[str, str], needed: Sequence[str]) -> None:
    """Compare every file of a bundle with its manifest.

    Raises
    ------
    MetaDxError
        ``bundle_damaged`` when a file is missing, changed, or not named.
    """
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()} - {
        MANIFEST
    }
    for name in (*needed, *listed):
        if name not in there or name not in listed:
            raise _damaged(folder, f"{name} is missing")
    for name in sorted(there):
        if name not in listed:
            raise _damaged(folder, f"{name} is not named in its {MANIFEST}")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != listed[name]:
            raise _damaged(folder, f"{name} was changed after it was written")


def _damaged(folder: Path, what: str) -> MetaDxError:
    return MetaDxError(
        "bundle_damaged",
        f"The bundle {folder} is not what was exported, {what}: copy it again from where it came, or remove "
        "the folder and run 'meta-dx export'.",
    )
