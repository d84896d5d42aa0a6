"""How fast ingest is: beside a bare loop, on a tree that has not changed, and with ten times the files.

    OMP_NUM_THREADS=1 python benchmarks/ingest_speed.py floor FOLDER [--workers 2] [--rounds 3] [--times 1]
    OMP_NUM_THREADS=1 python benchmarks/ingest_speed.py rescan [--files 20000]
    OMP_NUM_THREADS=1 python benchmarks/ingest_speed.py scale [--counts 1000 10000 100000]

*floor*: the files that have pixels, through ``pydicom.dcmread(...).pixel_array`` and the resize of ``preprocess`` on as
many processes, beside the whole of ingest (reading in limited processes, which have to start; surrogates, hashes,
checks, objects, catalog); ``--times`` takes every file so often, each time as another study, so that the start counts
less. *scale*: each count in a process
of its own, which says how much memory it and its readers took.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from meta_dx.cohort.ingest import IngestOptions, ingest_folder
from meta_dx.cohort.preprocessing import ImageOptions, preprocess
from meta_dx.dicom.quarantine import QUARANTINED
from meta_dx.home import Home

_LOOK = ImageOptions(size=64)


def bare(paths: list[Path]) -> float:
    """Decode and resize files the shortest way; return the seconds of processor time."""
    begun = time.process_time()
    for path in paths:
        pixels = dcmread(path).pixel_array
        frame = pixels if pixels.ndim == 2 or pixels.shape[-1] == 3 else pixels[0]
        preprocess(frame.astype(np.float32), _LOOK)
    return time.process_time() - begun


def floor(source: Path, workers: int, rounds: int, times: int) -> None:
    """Print the rate of ingest by the rate of the bare loop; both take turns."""
    with tempfile.TemporaryDirectory() as copies:
        folder = Path(copies)
        for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
            try:
                bare([path])
            except Exception as fault:  # whatever a file without pixels, or none of DICOM, leads to
                print(f"left out: {type(fault).__name__}", file=sys.stderr)
                continue
            shutil.copy(path, folder / f"{number:06d}.dcm")
            for again in range(1, times):
                _other_study(path, again).save_as(folder / f"{number:06d}-{again}.dcm")
        _floor(folder, workers, rounds)


def _other_study(path: Path, number: int) -> Dataset:
    dataset = dcmread(path)
    for level in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        dataset[level].value = generate_uid(entropy_srcs=[dataset[level].value, str(number)])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _floor(folder: Path, workers: int, rounds: int) -> None:
    paths = sorted(folder.iterdir())
    size = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} files, {size / 1e6:.0f} MB, {workers} processes")
    options = IngestOptions(workers=workers, allow=tuple(QUARANTINED))
    ratios = []
    # A file system may look at every file that was removed a moment ago before it makes a new one: the homes of all
    # rounds stay until the end.
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
    ):
        list(pool.map(bare, [paths[:2]] * workers))  # imports are no part of the floor
        for number in range(rounds):
            begun = time.monotonic()
            plain_cpu = sum(pool.map(bare, [paths[n : n + 16] for n in range(0, len(paths), 16)]))
            plain = time.monotonic() - begun
            begun, whole_cpu = time.monotonic(), _cpu()
            summary = ingest_folder(Home.open(Path(scratch) / str(number)), folder, options=options)
            whole, whole_cpu = time.monotonic() - begun, _cpu() - whole_cpu
            ratios.append((plain / whole, plain_cpu / whole_cpu))
            print(
                f"floor {len(paths) / plain:.0f} files/s, ingest {len(paths) / whole:.0f} files/s "
                f"({summary.accepted} accepted): {ratios[-1][0]:.2f} by the clock, {ratios[-1][1]:.2f} of processor"
            )
    clock, cpu = np.median(ratios, axis=0)
    print(f"median {clock:.2f} by the clock, {cpu:.2f} of processor time")


def make(folder: Path, count: int) -> None:
    """Write small instances cheaply: one template, other UIDs of the same length and another first row."""
    data = _template()
    for number in range(count):
        one = data
        for level, value in (("1", number // 10), ("2", number // 10), ("3", number)):
            one = one.replace(_uid(level, 0), _uid(level, value))
        one = one.replace(b"P%012d" % 0, b"P%012d" % (number // 10))
        place = folder / f"{number // 1000:04d}"
        place.mkdir(exist_ok=True)
        (place / f"{number:07d}.dcm").write_bytes(one[:-8] + number.to_bytes(8, "little"))


def _uid(level: str, value: int) -> bytes:
    return f"1.2.840.{level}.1{value:010d}".encode()


def _template() -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = _uid("3", 0).decode(), _uid("1", 0).decode()
    dataset.SeriesInstanceUID = _uid("2", 0).decode()
    dataset.PatientID, dataset.PatientSex, dataset.PatientAge = f"P{0:012d}", "F", "054Y"
    dataset.StudyDate, dataset.Modality, dataset.BodyPartExamined = "20240229", "CR", "CHEST"
    dataset.ImageType, dataset.InstanceNumber = ["ORIGINAL", "PRIMARY"], 1
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 16, 16, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = np.arange(256, dtype="<u2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    target = BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


def rescan(count: int) -> None:
    """Print how many files of an unchanged tree ingest looks through in a second of processor time."""
    for files in _made(count):
        with tempfile.TemporaryDirectory() as scratch:
            home = Home.open(Path(scratch) / "home")
            ingest_folder(home, files)
            for _ in range(3):
                wall, cpu = time.monotonic(), time.process_time()
                summary = ingest_folder(home, files)
                wall, cpu = time.monotonic() - wall, time.process_time() - cpu
                print(
                    f"{summary.found} files: {summary.found / cpu:.0f} files/s and core ({wall:.2f} s by the clock)"
                )


def scale(counts: list[int]) -> None:
    """Print time and memory of an ingest of each number of files."""
    before = 0.0
    for count in counts:
        command = [sys.executable, __file__, "one", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result = json.loads(done.stdout)
        grown = f", {result['cpu'] / before:.2f} times the line before" if before else ""
        before = result["cpu"]
        print(
            f"{count} files: {result['cpu']:.1f} s of processor, {result['wall']:.1f} s by the clock{grown}; "
            f"{result['own']} MB, a reader {result['reader']} MB"
        )


def one(count: int) -> None:
    """Ingest so many files and print what it took, for :func:`scale`."""
    for files in _made(count):
        with tempfile.TemporaryDirectory() as scratch:
            home = Home.open(Path(scratch) / "home")
            start = _cpu()
            wall = time.monotonic()
            summary = ingest_folder(home, files, options=IngestOptions(workers=2))
            wall = time.monotonic() - wall
            if summary.accepted != count:
                raise SystemExit(f"only {summary.accepted} of {count} were accepted")
            own, readers = (resource.getrusage(who).ru_maxrss // 1024 for who in _WHO)
            print(json.dumps({"cpu": _cpu() - start, "wall": wall, "own": own, "reader": readers}))


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in _WHO]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _made(count: int) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        make(folder, count)
        yield folder
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    command = what.add_parser("floor")
    command.add_argument("folder", type=Path)
    command.add_argument("--workers", type=int, default=2)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--times", type=int, default=1)
    what.add_parser("rescan").add_argument("--files", type=int, default=20_000)
    what.add_parser("scale").add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    what.add_parser("one").add_argument("count", type=int)
    options = parser.parse_args()
    if options.what == "floor":
        floor(options.folder, options.workers, options.rounds, options.times)
    elif options.what == "rescan":
        rescan(options.files)
    elif options.what == "scale":
        scale(options.counts)
    else:
        one(options.count)


if __name__ == "__main__":
    main()
