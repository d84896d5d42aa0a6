"""What it costs that pictures are prepared by limited processes, beside a plain loop in this one.

    OMP_NUM_THREADS=1 python benchmarks/preparing_speed.py FOLDER [--size 64] [--dimensions 2] [--rounds 3]

The folder is ingested once. The plain loop reads each stored object, checks its hash, decodes it and makes it small, as
the image store itself did once. Both give the same bytes, which is checked.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.images import _candidate_frames as candidate_frames
from meta_dx.cohort.images import _keys, select_images
from meta_dx.cohort.ingest import IngestOptions, ingest_folder
from meta_dx.cohort.objects import ObjectStore
from meta_dx.cohort.picture_process import prepared_frame
from meta_dx.cohort.preprocessing import ImageOptions
from meta_dx.cohort.rendering import renderer
from meta_dx.cohort.volume_images import candidate_volumes
from meta_dx.cohort.volume_preprocessing import preprocess_volume
from meta_dx.cohort.volumes import SeriesPart
from meta_dx.dicom.quarantine import QUARANTINED
from meta_dx.dicom.reading import ReadLimits
from meta_dx.dicom.volumes import assemble, decoded_slices
from meta_dx.home import Home


def plain(
    home: Home, keys: list[tuple[str, int]], volumes: Mapping[str, SeriesPart], options: ImageOptions
) -> list[bytes]:
    """Prepare everything in this process."""
    store = ObjectStore(home)
    if not volumes:
        return [prepared_frame(store.read(name), frame, options).tobytes() for name, frame in keys]
    made = []
    for name, _ in keys:
        one = volumes[name]
        slices = one.instances[["object", "frame"]].itertuples(index=False, name=None)
        volume = assemble(one.part, decoded_slices((store.read(name), int(frame)) for name, frame in slices))  # type: ignore[arg-type]
        made.append(preprocess_volume(volume, options).tobytes())
    return made


def limited(
    home: Home, keys: list[tuple[str, int]], volumes: Mapping[str, SeriesPart], options: ImageOptions
) -> list[bytes]:
    """Prepare everything as the image store does; the start of the processes counts."""
    with renderer(home, options, volumes, ReadLimits()) as pictures:
        return [one.tobytes() for some in pictures.rendered(keys) for one in some]  # type: ignore[union-attr]


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Read the command line and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--dimensions", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    options = ImageOptions(size=asked.size, dimensions=asked.dimensions, channels=1)
    with tempfile.TemporaryDirectory() as scratch:
        home = Home.open(Path(scratch))
        ingest_folder(home, asked.folder, options=IngestOptions(allow=tuple(QUARANTINED)))
        instances = Catalog(home).instances()
        volumes: dict[str, SeriesPart] = {}
        frames = candidate_frames(instances, options)
        if options.dimensions == 3:
            frames, volumes, _ = candidate_volumes(instances, options)
        keys = _keys(select_images(frames, options))
        print(f"{len(keys)} {'volumes' if volumes else 'pictures'}")
        ratios = []
        for _ in range(asked.rounds):
            taken = []
            made = []
            for way in (plain, limited):
                cpu, wall = _cpu(), time.monotonic()
                made.append(way(home, keys, volumes, options))
                taken.append((_cpu() - cpu, time.monotonic() - wall))
            if made[0] != made[1]:
                raise SystemExit("the two ways give other pictures")
            ratios.append(np.divide(taken[1], taken[0]))
            print(
                f"plain {taken[0][0]:.2f} s of processor, {taken[0][1]:.2f} by the clock; "
                f"limited {taken[1][0]:.2f}, {taken[1][1]:.2f}: {ratios[-1][0]:.2f} and {ratios[-1][1]:.2f} times"
            )
        cpu, clock = np.median(ratios, axis=0)
        print(f"median {cpu:.2f} times the processor time, {clock:.2f} by the clock")


if __name__ == "__main__":
    main()
