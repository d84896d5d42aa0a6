"""A patient with a study of today and an earlier one; the grey of a slice says where in the body it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.home import Home
from meta_dx.review.desk import Desk
from meta_dx.steps.review import case_of
from tests.dicom.builders import uid_of
from tests.dicom.series import slices_at

SIDE, SPACING = 64, 4.0  # pixels, mm
THICK, THIN, SAGITTAL, EARLIER = 12, 23, 9, 14  # slices of the four series
STEP = 5.0  # mm between thick slices
LEVEL = 40  # Hounsfield units by which each 5 mm of the body are brighter than those below
AWAY = 15.0  # mm further up that the same place of the body lies in the earlier study's coordinates


def write_two_studies(folder: Path, earlier_frame: str | None = "earlier") -> None:
    """Write the patient's files.

    Today's study has thick and thin axial slices and sagittal ones, in one frame of reference. The earlier one has
    axial slices, two more than the thick ones and the body 15 mm higher up: more than half of its coordinates are
    also some of today's, and mean other places there.

    Parameters
    ----------
    folder : Path
        Where.
    earlier_frame : str or None
        A word for the earlier study's frame of reference, ``"today"`` being that of today's; None: no frame is named.
    """
    axial = {"across": (1, 0, 0), "down": (0, 1, 0)}
    corner = -SPACING * (SIDE - 1) / 2
    thick = [(corner, corner, STEP * n) for n in range(THICK)]
    thin = [(corner, corner, STEP / 2 * n) for n in range(THIN)]
    side = [(10.0 * (n - SAGITTAL // 2), corner, -corner) for n in range(SAGITTAL)]
    then = [(corner, corner, STEP * (n - 1) + AWAY) for n in range(EARLIER)]
    today = {"study": "today", "frame": "today", "day": "20240229"}
    _write(folder, "thick", thick, **axial, **today)
    _write(folder, "thin", thin, **axial, **today)
    _write(folder, "side", side, across=(0, 1, 0), down=(0, 0, -1), **today)
    _write(folder, "then", then, **axial, study="then", frame=earlier_frame, day="20240110", up=AWAY)


def desk_of_two_studies(root: Path, source: Path) -> Desk:
    """Take the files in, with today's study as the only case."""
    home = Home.open(root)
    ingest_folder(home, source)
    desk = Desk(home)
    newest = Catalog(home).studies().sort_values("study_date").iloc[-1]
    desk.cases.add([case_of(newest.to_dict())])
    return desk


def _write(
    folder: Path,
    series: str,
    places: Sequence[tuple[float, float, float]],
    *,
    across: tuple[int, int, int],
    down: tuple[int, int, int],
    study: str,
    frame: str | None,
    day: str,
    up: float = 0.0,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    axis = SPACING * (np.arange(SIDE) - (SIDE - 1) / 2)
    disc = np.hypot(axis[:, None], axis) < 0.4 * SIDE * SPACING

    def draw(dataset: Dataset, number: int) -> None:
        level = LEVEL * (places[number][2] - up) / STEP if across[0] else 100.0
        values = np.where(disc, level, -1000.0) + 1024
        dataset.PixelData = np.rint(values).clip(0, 4095).astype("<u2").tobytes()
        if frame is None:
            del dataset.FrameOfReferenceUID
        else:
            dataset.FrameOfReferenceUID = uid_of(f"frame of {frame}")

    made = slices_at(
        places,
        across=across,
        down=down,
        spacing=(SPACING, SPACING),
        size=(SIDE, SIDE),
        series=series,
        edit=draw,
        study=study,
        StudyDate=day,
        WindowCenter=250,
        WindowWidth=700,
    )
    for number, one in enumerate(made):
        one.save_as(folder / f"{series}{number:03d}.dcm", enforce_file_format=True)
