"""Which near-duplicate pictures are found: pairs of a cohort by each look, and copies made of 250 of its pictures.

    META_DX_DATA=/path/to/cohorts python benchmarks/near_duplicates.py examples/derm.toml

Reads the DICOM files of a cohort's sources (``*.dcm``, one frame each, all of them) and prints the pairs that each
look finds, the nearest pairs that the second look leaves apart, and for each kind of copy the share that is joined
with its original, by hash alone and by both looks. Figures: docs/splits.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pydicom
from PIL import Image

from meta_dx.cohort.copies import AGREEMENT, find_copies, grey_pictures
from meta_dx.cohort.duplicates import FLAT, near_duplicate_groups
from meta_dx.cohort.preprocessing import preprocess
from meta_dx.dicom.pixels import physical_pixels
from meta_dx.settings import load_settings

COPIES, SEED, NEAR = 250, 5, 0.45
Pixels = npt.NDArray[np.float32]


def main(cohort: str) -> None:
    """Print all figures."""
    settings = load_settings(cohort)
    files = sorted(file for source in settings.cohort.sources for file in Path(source).rglob("*.dcm"))
    pictures = np.stack([preprocess(pixels(file), settings.images) for file in files])
    patients = np.array([str(pydicom.dcmread(file, stop_before_pixels=True).PatientID) for file in files])
    shown = np.flatnonzero(grey_pictures(pictures, 32).reshape(len(pictures), -1).std(axis=1) >= FLAT)

    began = time.process_time()
    _, pairs = near_duplicate_groups(pictures, patients)
    say(f"{len(pictures)} pictures, {time.process_time() - began:.1f} s of processor time")
    for reason, count in pairs["reason"].str.split("[:,]").map(lambda parts: parts[0]).value_counts().items():
        say(f"  {count} pairs by {reason}")
    owner = np.unique(patients, return_inverse=True)[1]
    near = find_copies(grey_pictures(pictures)[shown], owner[shown], least=NEAR)
    apart = sorted((copy.agreement for copy in near if copy.agreement < AGREEMENT), reverse=True)
    say("  nearest that the embedding leaves apart: " + ", ".join(f"{value:.3f}" for value in apart[:8]))

    rows = np.sort(np.random.default_rng(SEED).choice(shown, min(COPIES, len(shown)), replace=False))
    originals = [from_0_to_255(pixels(files[row])) for row in rows]
    for kind, change in KINDS.items():
        changed = np.stack(
            [preprocess(np.ascontiguousarray(change(one)), settings.images) for one in originals]
        )
        by_hash, by_both = joined(pictures, patients, rows, changed)
        say(f"  {kind}: {by_hash:.0%} by hash, {by_both:.0%} by both looks")


def joined(
    pictures: npt.NDArray[np.uint8],
    patients: npt.NDArray[np.str_],
    rows: npt.NDArray[np.int64],
    changed: npt.NDArray[np.uint8],
) -> tuple[float, float]:
    """Return the share of copies that are joined with their originals, each copy under a name of its own."""
    names = [f"copy {number}" for number in range(len(rows))]
    groups, pairs = near_duplicate_groups(np.concatenate([pictures, changed]), [*patients, *names])
    both = [groups[name] == groups[patient] for name, patient in zip(names, patients[rows], strict=True)]
    hashed = pairs[pairs["reason"].str.startswith("hash")]
    found = pd.MultiIndex.from_frame(hashed[["first_patient", "second_patient"]])
    by_hash = [(patient, name) in found for name, patient in zip(names, patients[rows], strict=True)]
    return float(np.mean(by_hash)), float(np.mean(both))


def pixels(file: Path) -> Pixels:
    """Return the first frame in physical units."""
    return physical_pixels(pydicom.dcmread(file), 0).astype(np.float32)


def from_0_to_255(values: Pixels) -> Pixels:
    """Stretch values to 8 bits."""
    return (values - values.min()) / max(float(np.ptp(values)), 1e-6) * 255


def cut(part: float) -> Callable[[Pixels], Pixels]:
    """Cut a part of each side."""

    def change(one: Pixels) -> Pixels:
        down, across = (round(length * part) for length in one.shape[:2])
        return one[down : one.shape[0] - down, across : one.shape[1] - across]

    return change


def shifted(part: float) -> Callable[[Pixels], Pixels]:
    """Move down and to the right; black comes in."""

    def change(one: Pixels) -> Pixels:
        down, across = (round(length * part) for length in one.shape[:2])
        moved = np.zeros_like(one)
        moved[down:, across:] = one[: one.shape[0] - down, : one.shape[1] - across]
        return moved

    return change


def compressed(one: Pixels) -> Pixels:
    """Compress to JPEG quality 30."""
    stream = BytesIO()
    Image.fromarray(np.rint(one).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=30)
    return np.asarray(Image.open(stream)).astype(np.float32)


def marked(one: Pixels) -> Pixels:
    """Put a white square of 12 % of the shorter side into a corner of the middle square."""
    height, width = one.shape[:2]
    side = min(height, width)
    top, right, mark = (height - side) // 2, width - (width - side) // 2, round(0.12 * side)
    changed = one.copy()
    changed[top : top + mark, right - mark : right] = 255
    return changed


KINDS: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG quality 30": compressed,
    "gamma 1.5": lambda one: 255 * (one / 255) ** 1.5,
    "white mark in a corner": marked,
    "shifted by 1 of 64 pixels": shifted(1 / 64),
    "shifted by 2 of 64 pixels": shifted(2 / 64),
    "shifted by 6 %": shifted(0.06),
    "cut by 3 % on each side": cut(0.03),
    "cut by 6 % on each side": cut(0.06),
    "cut by 10 % on each side": cut(0.10),
    "cut by 10 % on one side": lambda one: one[:, round(0.1 * one.shape[1]) :],
    "mirrored": np.fliplr,
    "turned by 90°": np.rot90,
    "turned by 180°": lambda one: np.rot90(one, 2),
    "mirrored and cut by 6 %": lambda one: np.fliplr(cut(0.06)(one)),
    "turned, shifted by 3 %, JPEG": lambda one: compressed(shifted(0.03)(np.rot90(one))),
    "inverted": lambda one: 255 - one,
}


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
