"""Reads mutants in a process of its own, which may die: ``python -m tests.dicom.mutant_reader FOLDER FIRST COUNT``.

Each line of the standard output is one finding, or the number of the mutant that comes next; a process that
dies says with its last line which mutant did it.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread

from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.pixels import physical_pixels
from meta_dx.dicom.quarantine import QUARANTINED
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits, read_content
from meta_dx.dicom.rejections import Refusal, RejectionCode
from tests.dicom.mutants import TOKEN, mutant

MEMORY = 2 << 30
SECONDS = 20
LIMITS = ReadLimits(decoded_bytes=64 << 20, allow=frozenset(QUARANTINED))
_SURROGATES = Surrogates(b"mutants of the fuzz")
_NEXT, _FINDING, _DONE = "next", "finding", "done"


@dataclass
class Outcome:
    """What became of many mutants."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0
    peak_bytes: int = 0


def read_mutants(folder: Path, first: int, count: int) -> Outcome:
    """Read mutants ``first … first + count`` of every file in a folder, in processes that may die."""
    total, place, jobs = Outcome(), 0, len(sorted(folder.iterdir())) * count
    while place < jobs:
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.dicom.mutant_reader"]
        words = [str(folder), str(first), str(count), str(place)]
        root = Path(__file__).parents[2]
        done = subprocess.run([*command, *words], check=False, capture_output=True, text=True, cwd=root)
        place = _take(done, total, place)
    return total


def _take(done: subprocess.CompletedProcess[str], total: Outcome, place: int) -> int:
    for line in done.stdout.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == _NEXT:
            place = int(rest)
        elif kind == _FINDING:
            total.findings.append(rest)
        elif kind == _DONE:
            said = json.loads(rest)
            total.outcomes.update(said["outcomes"])
            total.slowest = max(total.slowest, said["slowest"])
            total.peak_bytes = max(total.peak_bytes, said["peak"])
            return int(said["place"])
    ends = done.stderr.strip().splitlines()[:12]
    total.findings.append(f"the process ended with {done.returncode} at job {place}: {' | '.join(ends)}")
    return place + 1


def check(content: bytes) -> tuple[str, str | None]:
    """Read one file and return what became of it, and what is wrong with that."""
    result = read_content(lambda: content, _SURROGATES, limits=LIMITS)
    if isinstance(result, Refusal):
        said = f"{result.code} {result.detail} {result.reason}"
        known = result.code in RejectionCode and TOKEN not in said and len(said) < 300
        return str(result.code), None if known else "a refusal that quotes or has no code"
    return "accepted", _disagreement(result)


def _disagreement(result: AcceptedInstance) -> str | None:
    """Hold the row against the object that is kept; ``None`` where they agree."""
    row = result.row
    kept = dcmread(BytesIO(result.object))
    said = (
        kept.Rows,
        kept.Columns,
        int(kept.get("NumberOfFrames") or 1),
        kept.BitsStored,
        kept.SOPInstanceUID,
    )
    if said != (row["rows"], row["columns"], row["frames"], row["bits_stored"], row["instance"]):
        return "the object describes other pixels than the row"
    if hashlib.sha256(result.object).hexdigest() != row["object"]:
        return "the object has another name"
    low, high = np.inf, -np.inf
    for frame in range(row["frames"]):
        pixels = physical_pixels(kept, frame)
        if pixels.shape[:2] != (row["rows"], row["columns"]):
            return "another shape"
        low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
    if not np.array_equal([low, high], [row["pixel_min"], row["pixel_max"]], equal_nan=True):
        return f"pixels from {low} to {high}, not from {row['pixel_min']} to {row['pixel_max']}"
    return None


def main(folder: Path, first: int, count: int, place: int) -> None:
    """Read mutants one after the other from a place on."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # kills, also while C code runs
    out = os.fdopen(os.dup(1), "w", buffering=1)
    files = sorted(folder.iterdir())
    whole = [path.read_bytes() for path in files]
    outcomes: Counter[str] = Counter()
    slowest, began = 0.0, place
    for job in range(place, len(files) * count):
        name, number = files[job // count].stem, first + job % count
        content = mutant(whole[job // count], number)
        print(_NEXT, job, file=out)
        if os.environ.get("META_DX_TEST_DIES_AT") == str(job):
            os.abort()
        signal.alarm(SECONDS)
        started = time.perf_counter()
        try:
            outcome, fault = check(content)
        except Exception as raised:
            outcome, fault = "raised", f"{type(raised).__name__}: {raised}"
        signal.alarm(0)
        slowest = max(slowest, time.perf_counter() - started)
        outcomes[outcome] += 1
        if fault:
            print(_FINDING, f"{name} {number}: {fault}", file=out)
        # A report now and then: what a process that dies has seen is not lost.
        if job == len(files) * count - 1 or job - began >= 20_000:
            break
    said = {"outcomes": outcomes, "slowest": slowest, "peak": _peak_bytes(), "place": job + 1}
    print(_DONE, json.dumps(said), file=out)


def _peak_bytes() -> int:
    """Return the most memory of this program; getrusage would count the one that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:5]))
