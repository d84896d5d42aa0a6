"""An independent reader and writer of DICOM for tests: the command line tools of OFFIS dcmtk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TOOLS = (
    "dcm2pnm",
    "dcmcjpeg",
    "dcmcjpls",
    "dcmconv",
    "dcmcrle",
    "dcmdjpeg",
    "dcmdjpls",
    "dcmdrle",
    "dcmdump",
)
MISSING = "dcmtk is not installed: apt-get install dcmtk"
_JPEG = "1.2.840.10008.1.2.4."
_DECODERS = {
    "1.2.840.10008.1.2.5": ("dcmdrle",),
    **{f"{_JPEG}{number}": ("dcmdjpeg", "+cn") for number in (50, 51, 53, 55, 57, 70)},
    **{f"{_JPEG}{number}": ("dcmdjpls",) for number in (80, 81)},
    **{f"1.2.840.10008.1.2{end}": ("dcmconv",) for end in ("", ".1", ".2", ".1.99")},
}


def installed() -> bool:
    """Tell whether all tools are there."""
    return all(shutil.which(tool) for tool in TOOLS)


def decodes(transfer_syntax: str) -> bool:
    """Tell whether dcmtk, as Debian builds it, has a decoder."""
    return transfer_syntax in _DECODERS


def run(*command: str | Path) -> None:
    """Run one tool; its complaint is in the error."""
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()[-300:]}")


def stored_values(path: Path, transfer_syntax: str, folder: Path) -> dict[str, Any]:
    """Decode with dcmtk and return what it says about the pixels, and the pixels.

    Parameters
    ----------
    path : Path
        A DICOM file.
    transfer_syntax : str
        Of the file.
    folder : Path
        For files that come and go.

    Returns
    -------
    dict
        ``frames``: int64 (F, H, W) or (F, H, W, 3), bits that are not stored removed and the sign carried on;
        ``photometric``.
    """
    plain = folder / "plain.dcm"
    run(*_DECODERS[transfer_syntax], "+te", path, plain)
    raw_folder = folder / "raw"
    shutil.rmtree(raw_folder, ignore_errors=True)
    raw_folder.mkdir()
    run("dcmdump", "+W", raw_folder, "-q", plain)
    raw = max(raw_folder.glob("*.raw"), key=lambda found: found.stat().st_size)  # the others are icons
    said = _values(plain)
    return {
        "frames": _arranged(raw.read_bytes(), said),
        "photometric": said.get("PhotometricInterpretation", ""),
    }


def shown(path: Path, folder: Path) -> Array:
    """Return what dcmtk shows of the first frame: (H, W, 3) for colour, from 0 to 255."""
    pnm = folder / "shown.pnm"
    run("dcm2pnm", path, pnm)
    kind, size, _, rest = pnm.read_bytes().split(b"\n", 3)
    columns, rows = map(int, size.split())
    if kind in {b"P2", b"P3"}:
        return np.array(rest.split(), int).reshape(rows, columns, -1)
    return np.frombuffer(rest, np.uint8).reshape(rows, columns, -1).astype(int)


_ATTRIBUTES = (
    "PhotometricInterpretation Rows Columns NumberOfFrames SamplesPerPixel BitsAllocated BitsStored HighBit "
    "PixelRepresentation PlanarConfiguration"
).split()


def _values(path: Path) -> dict[str, str]:
    wanted = [part for keyword in _ATTRIBUTES for part in ("+P", keyword)]
    command = ["dcmdump", "-q", *wanted, str(path)]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    values: dict[str, str] = {}
    for line in done.stdout.decode("ascii", "replace").splitlines():
        value, _, comment = line.partition("#")
        # The first of a name: those inside of icons come later.
        values.setdefault(comment.split()[-1], value.split(" ", 2)[2].strip().strip("[]").strip())
    return values


def _arranged(raw: bytes, said: dict[str, str]) -> Array:
    photometric = said["PhotometricInterpretation"]
    number = {name: int(said.get(name) or 0) for name in _ATTRIBUTES[1:]}
    frames, rows, columns = max(1, number["NumberOfFrames"]), number["Rows"], number["Columns"]
    samples, allocated, stored = (number[k] for k in ("SamplesPerPixel", "BitsAllocated", "BitsStored"))
    if photometric == "YBR_FULL_422":  # native: two lumas share a pair of colours
        pairs = np.frombuffer(raw, np.uint8)[: frames * rows * columns * 2].reshape(-1, 4).astype(np.int64)
        full = np.stack([pairs[:, [0, 1]], pairs[:, [2, 2]], pairs[:, [3, 3]]], axis=-1)
        return full.reshape(frames, rows, columns, 3)
    count = frames * rows * columns * samples
    if allocated == 1:
        values = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[:count].astype(np.int64)
    else:
        words = np.frombuffer(raw, f"<u{allocated // 8}")[:count].astype(np.int64)
        values = (words >> (number["HighBit"] + 1 - stored)) & ((1 << stored) - 1)
    if number["PixelRepresentation"]:
        values = np.where(values >> (stored - 1), values - (1 << stored), values)
    if samples == 1:
        return values.reshape(frames, rows, columns)
    if number["PlanarConfiguration"]:
        return values.reshape(frames, samples, rows, columns).transpose(0, 2, 3, 1)
    return values.reshape(frames, rows, columns, samples)


def as_rgb(frames: Array, photometric: str) -> Array:
    """Return colours as RGB by the formula of the standard (PS3.3, C.7.6.3.1.2)."""
    if not photometric.startswith("YBR_FULL"):
        return frames
    y, cb, cr = np.moveaxis(frames.astype(np.float64), -1, 0)
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    return np.rint(np.stack([red, green, blue], axis=-1)).clip(0, 255).astype(np.int64)
