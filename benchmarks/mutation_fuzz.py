"""Read many damaged DICOM files and say what became of them: codes, findings, time and memory.

    python -m benchmarks.mutation_fuzz --count 3000
    python -m benchmarks.mutation_fuzz --count 20 --folder CORPUS --largest 100000

A finding is anything but an accepted instance that agrees with its object, or a coded refusal: a process that
died or hung, an exception, a refusal that quotes the file. Each names its seed file and the number of the mutant,
which gives the same bytes again (``tests.dicom.mutants.mutant``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.dicom.mutant_reader import read_mutants
from tests.dicom.mutants import written_seeds


def main() -> int:
    """Run and print; 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="mutants of each file")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument(
        "--folder", type=Path, help="damage the files in this folder instead of synthetic ones"
    )
    parser.add_argument("--largest", type=int, default=200_000, help="only files up to so many bytes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        seeds = Path(place)
        if options.folder is None:
            written_seeds(seeds)
        else:
            _copies(options.folder, seeds, options.largest)
        started = time.perf_counter()
        outcome = read_mutants(seeds, options.first, options.count)
        report = {
            "files": len(list(seeds.iterdir())),
            "mutants": sum(outcome.outcomes.values()),
            "outcomes": dict(outcome.outcomes.most_common()),
            "findings": outcome.findings,
            "slowest_seconds": round(outcome.slowest, 3),
            "peak_megabytes": outcome.peak_bytes >> 20,
            "seconds": round(time.perf_counter() - started, 1),
        }
    print(json.dumps(report, indent=2))
    return int(bool(outcome.findings))


def _copies(folder: Path, seeds: Path, largest: int) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size <= largest]
    for number, path in enumerate(files):
        (seeds / f"{number:04d}").write_bytes(path.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
