"""How long a CT volume takes to assemble, beside the bare floor, and the parts of it.

    OMP_NUM_THREADS=1 python benchmarks/volume_speed.py [--slices 300] [--side 512] [--rounds 15]

*Assembling* is everything after decoding: the geometry of the slices is read from their headers, sorted and
checked, and the stored values go into one preallocated float32 array in Hounsfield units. The *floor* is one line of
numpy:
``np.stack(decoded).astype(np.float32) * slope + intercept``, unsorted and unchecked. Both take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from pydicom.dataset import Dataset

from meta_dx.dicom.frames import frame_fields
from meta_dx.dicom.geometry import Stack, arrange
from meta_dx.dicom.volumes import DecodedSlice, assemble, frames_of


def series(slices: int, side: int) -> tuple[list[Dataset], list[np.ndarray]]:
    """Make the headers and the decoded pixels of a series, in an order that says nothing."""
    rng = np.random.default_rng(0)
    headers, pixels = [], []
    for number in rng.permutation(slices).tolist():
        header = Dataset()
        header.SOPInstanceUID = f"1.2.{number + 1}"
        header.Rows = header.Columns = side
        header.PhotometricInterpretation, header.PixelRepresentation, header.BitsStored = "MONOCHROME2", 0, 12
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.FrameOfReferenceUID = "1.2.3"
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [-200, -200, 1.25 * number]
        header.PixelSpacing = [0.78, 0.78]
        header.SliceThickness, header.AcquisitionNumber = 1.25, 1
        header.RescaleSlope, header.RescaleIntercept = 1, -1024
        headers.append(header)
        pixels.append(rng.integers(0, 4096, (side, side), dtype=np.uint16))
    return headers, pixels


def assembled(headers: list[Dataset], pixels: list[np.ndarray]) -> np.ndarray:
    """Do what the library does after decoding."""
    (stack,) = arrange(frames_of(headers))
    if not isinstance(stack, Stack):
        raise RuntimeError(f"the series is no stack: {stack}")
    return assemble(stack, _slices(stack, headers, pixels)).voxels


def _slices(stack: Stack, headers: list[Dataset], pixels: list[np.ndarray]) -> Iterator[DecodedSlice]:
    for row in stack.rows:
        yield DecodedSlice(pixels[row], headers[row], 0, 12)


def floor(headers: list[Dataset], pixels: list[np.ndarray]) -> np.ndarray:
    """Do the least that gives Hounsfield units."""
    values = np.stack(pixels).astype(np.float32) * np.float32(headers[0].RescaleSlope)
    return values + np.float32(headers[0].RescaleIntercept)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    headers, pixels = series(options.slices, options.side)
    positions = np.array([float(header.ImagePositionPatient[2]) for header in headers])
    if not (assembled(headers, pixels) == floor(headers, pixels)[np.argsort(positions)]).all():
        raise RuntimeError("the volume is not what the floor computes")
    works: dict[str, Callable[[], object]] = {
        "assembled, checks included": lambda: assembled(headers, pixels),
        "floor: numpy in one line": lambda: floor(headers, pixels),
        "of it: reading the headers' numbers": lambda: [frame_fields(header) for header in headers],
        "of it: sorting and checking": lambda: arrange(frames_of(headers)),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(options.rounds):
        for name, work in works.items():
            times[name].append(timed(work))
    print(f"{options.slices} slices of {options.side} x {options.side}, {options.rounds} rounds, medians")
    for name, found in times.items():
        clock, processor = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name:<38} clock {clock:6.3f} s   processor {processor:6.3f} s")
    ratios = [
        ours[1] / bare[1]
        for ours, bare in zip(
            times["assembled, checks included"], times["floor: numpy in one line"], strict=True
        )
    ]
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    print(f"by the floor, processor time: {middle:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
