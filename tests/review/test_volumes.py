"""A volume in a real browser: slices, windows, cine, lengths, and an earlier study beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.ingest import ingest_folder
from meta_dx.dicom.phantom.volumes import write_volume_phantom
from meta_dx.home import Home
from meta_dx.review.desk import Desk
from meta_dx.steps.review import case_of
from tests.review.chromium import needs_chromium, opening
from tests.review.serving import served
from tests.review.viewer import OTHER, PANE, Viewer

pytestmark = needs_chromium
TABLE = 500.0  # mm by which the table stood elsewhere at the earlier study


def add_earlier_study(patient: Path) -> None:
    """Write the study of a patient again, 100 days earlier, every second slice, with the table moved."""
    files = [dcmread(path) for path in sorted(patient.glob("*.dcm"))]
    normal = np.cross(files[0].ImageOrientationPatient[:3], files[0].ImageOrientationPatient[3:])
    files.sort(key=lambda one: float(normal @ np.array(one.ImagePositionPatient, float)))
    study, series, frame = (generate_uid(entropy_srcs=[patient.name, part]) for part in "abc")
    for number, one in enumerate(files[::2]):
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[patient.name, str(number)]
        )
        one.StudyDate, one.AccessionNumber = "20200101", "EARLIER"
        place = np.array(one.ImagePositionPatient, float) + TABLE * normal
        one.ImagePositionPatient = [f"{value:.4f}" for value in place]
        one.save_as(patient / f"earlier{number:03d}.dcm")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom of volumes: a few patients, the first of whom was there before."""
    folder = tmp_path_factory.mktemp("volumes")
    write_volume_phantom(folder / "phantom", diseases=6, patients=3)
    patients = sorted((folder / "phantom" / "studies").iterdir())
    kept = folder / "kept"
    kept.mkdir()
    # Axial, so that up is up; three of the others are enough for a worklist.
    axial = [p for p in patients if abs(dcmread(next(p.glob("*.dcm"))).ImageOrientationPatient[5]) < 0.5]
    whole = [p for p in axial if 16 <= len(list(p.glob("*.dcm"))) <= 24]
    for patient in whole[:3]:
        patient.rename(kept / patient.name)
    add_earlier_study(kept / whole[0].name)
    return kept


@pytest.fixture
def volume_desk(tmp_path: Path, volumes: Path) -> Desk:
    home = Home.open(tmp_path / "home")
    ingest_folder(home, volumes)
    desk = Desk(home)
    # The newest of each patient; days are moved in ingest, not the time between them.
    studies = Catalog(home).studies().sort_values("study_date")
    newest = studies.drop_duplicates("patient", keep="last")
    assert len(newest) == len(studies) - 1
    desk.cases.add(case_of(row) for row in newest.to_dict("records"))
    return desk


@pytest.fixture
def viewer(volume_desk: Desk) -> Iterator[Viewer]:
    with served(volume_desk) as address, opening(address) as sign_in:
        page = sign_in("anna")
        both = Catalog(volume_desk.home).studies().groupby("patient")["study"].agg(list)
        pair = next(studies for studies in both if len(studies) == 2)
        waiting = volume_desk.cases.waiting()
        page.goto(f"{address}/cases/{next(study for study in pair if study in waiting)}")
        yield Viewer(page)


def test_slices_scroll_by_key_wheel_and_slider(viewer: Viewer) -> None:
    last = viewer.number("slices") - 1
    assert last >= 15
    assert viewer.number("slice") == last // 2
    viewer.focus()
    viewer.press("Home")
    viewer.wait(lambda: viewer.number("slice") == 0)
    seen = []
    for number in range(1, 11):
        viewer.press("ArrowDown")
        viewer.wait(lambda number=number: viewer.number("slice") == number)
        seen.append(viewer.grey())
    seen = seen[5:]  # before it there is only air
    assert all(np.abs(a - b).max() > 5 for a, b in pairwise(seen)), "each is another"
    viewer.page.locator(f"{PANE} .pane__image").hover()
    viewer.page.mouse.wheel(0, -100)
    viewer.wait(lambda: viewer.number("slice") == 9)
    np.testing.assert_allclose(viewer.grey(), seen[-2], atol=2)
    viewer.press("End", "ArrowDown")
    viewer.wait(lambda: viewer.number("slice") == last)
    viewer.page.locator(f"{PANE} .pane__slider").fill("3")
    viewer.wait(lambda: viewer.number("slice") == 3)


def test_a_slice_that_is_held_is_not_fetched_again(viewer: Viewer) -> None:
    asked: set[str] = set()
    again: list[str] = []
    page, last = viewer.page, int(viewer.number("slices")) - 1
    page.on("requestfinished", lambda request: asked.add(request.url) if "/frames/" in request.url else None)
    page.on("framenavigated", lambda _: asked.clear())  # what the page before it had asked for does not count
    page.reload()
    viewer.ready()
    viewer.wait(lambda: len(asked) == last + 1)
    page.on("request", lambda request: again.append(request.url) if "/frames/" in request.url else None)
    page.locator(PANE).focus()
    for key, end in (("Home", 0), ("End", last), ("Home", 0)):
        viewer.press(key)
        viewer.wait(lambda end=end: viewer.number("slice") == end)
    viewer.press(*["ArrowDown"] * last)
    viewer.wait(lambda: viewer.number("slice") == last)
    assert again == []


def test_windows_inversion_zoom_and_reset(viewer: Viewer) -> None:
    viewer.focus()
    own, zoom = (viewer.number("center"), viewer.number("width")), viewer.number("zoom")
    presets = viewer.page.get_by_label("Window preset")
    names = presets.locator("option").all_text_contents()
    for name, center, width in (("Lung", -600, 1500), ("Bone", 480, 2500), ("Brain", 40, 80)):
        before = viewer.grey()
        presets.select_option(label=next(one for one in names if name in one))
        viewer.focus()
        assert (viewer.number("center"), viewer.number("width")) == (center, width)
        assert np.abs(viewer.grey() - before).max() > 20
    viewer.drag(90, 0)
    assert 100 < viewer.number("width") < 115
    before = viewer.grey()
    viewer.press("i")
    inside = slice(24, 40)
    np.testing.assert_allclose(viewer.grey()[inside, inside], 255 - before[inside, inside], atol=8)
    viewer.press("+", "+")
    assert viewer.number("zoom") == pytest.approx(1.44 * zoom, rel=0.03)
    viewer.press("r")
    assert (viewer.number("center"), viewer.number("width")) == own
    assert viewer.page.locator(PANE).get_attribute("data-invert") == "false"
    assert viewer.number("zoom") == pytest.approx(zoom, rel=0.02)


def test_cine_plays_every_slice_and_stops(viewer: Viewer) -> None:
    viewer.focus()
    viewer.page.evaluate(
        """selector => { window.seen = []; const pane = document.querySelector(selector);
            new MutationObserver(() => { const n = Number(pane.dataset.slice);
                if (window.seen.at(-1) !== n) window.seen.push(n); }).observe(pane, {attributes: true}); }""",
        PANE,
    )
    viewer.press("Home", "]", " ")
    viewer.wait(lambda: viewer.page.evaluate("window.seen.length") > 8)
    viewer.press(" ")
    seen = viewer.page.evaluate("window.seen")
    count = viewer.number("slices")
    steps = seen[seen.index(0) :]
    assert all(b == (a + 1) % count for a, b in pairwise(steps)), steps
    viewer.page.wait_for_timeout(300)
    stood = viewer.number("slice")
    viewer.page.wait_for_timeout(600)
    assert viewer.number("slice") == stood


def test_a_length_is_in_millimetres_and_belongs_to_its_slice(viewer: Viewer) -> None:
    viewer.focus()
    viewer.press("l")
    viewer.drag(120, 0)
    (said,) = viewer.lengths
    length = re.fullmatch(r"([\d.]+) mm", said)
    assert length
    scale = viewer.page.evaluate("devicePixelRatio") * 100 / viewer.number("zoom")
    spacing = viewer.page.locator(f"{PANE} .overlay--bl").inner_text()
    across = float(re.search(r"× ([\d.]+) mm", spacing)[1])  # type: ignore[index]
    assert float(length[1]) == pytest.approx(120 * scale * across, rel=0.03)
    viewer.press("w", "ArrowDown")
    viewer.wait(lambda: viewer.lengths == [])
    viewer.press("ArrowUp")
    viewer.wait(lambda: viewer.lengths == [said])
    viewer.press("Delete")
    viewer.wait(lambda: viewer.lengths == [])


def test_the_earlier_study_comes_beside_it_linked_where_the_slices_lie(viewer: Viewer) -> None:
    viewer.focus()
    viewer.press("Home")
    viewer.press("c")
    viewer.ready(OTHER)
    assert re.search(r"\d+ days earlier", viewer.page.locator(OTHER).inner_text())
    here, there = viewer.number("slices"), viewer.number("slices", OTHER)
    assert there == np.ceil(here / 2)

    def far() -> float:
        """By how many slices of this study the other one lies beside its place."""
        return abs(viewer.number("slice") - 2 * viewer.number("slice", OTHER))

    for _ in range(4):
        viewer.press("PageDown")
        viewer.wait(lambda: far() <= 2)
    assert viewer.number("slice") == here - 1
    assert viewer.number("slice", OTHER) == there - 1
    viewer.press("4")
    assert viewer.number("width") == viewer.number("width", OTHER)
    viewer.press("k", "Home")
    viewer.wait(lambda: viewer.number("slice") == 0)
    assert viewer.number("slice", OTHER) == there - 1, "unlinked"
    viewer.press("c")
    viewer.wait(lambda: viewer.page.locator(OTHER).count() == 0)
