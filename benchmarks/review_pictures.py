"""Makes the pictures of the review pages anew, from the demo home and the phantom of volumes: nobody's pictures.

    python benchmarks/review_pictures.py --home .meta_dx/demo [--out docs/pictures] [--all]

Works on a copy of the home of `make run`. With `--all` every page is taken at 1280 × 800 and at 3840 × 2160, dark
and light, to be looked at; without it, dark at 1280 × 800 only, as `docs/` shows them. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page
from pydicom import dcmread
from pydicom.uid import generate_uid

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from meta_dx.cohort.catalog import Catalog  # noqa: E402 # after the path
from meta_dx.cohort.ingest import ingest_folder  # noqa: E402
from meta_dx.dicom.phantom.volumes import write_volume_phantom  # noqa: E402
from meta_dx.home import Home  # noqa: E402
from meta_dx.records.opinions import BlindOpinion, Decision, Diagnosis  # noqa: E402
from meta_dx.review.desk import Desk  # noqa: E402
from meta_dx.review.forms import label  # noqa: E402
from meta_dx.steps import cohort_file_of, open_project  # noqa: E402
from meta_dx.steps.review import case_of, open_desk  # noqa: E402
from tests.review.chromium import launched, new_page, sign_in  # noqa: E402
from tests.review.serving import served  # noqa: E402

SIZES = {"1280": (1280, 800), "4k": (3840, 2160)}


def review_some(desk: Desk, count: int) -> None:
    """Let two readers decide about cases, mostly alike and as the model says, so that no page is empty."""
    rng = np.random.default_rng(0)
    people = {account.name: account for account in desk.accounts.all()}
    known = {disease.code: disease for disease in desk.diseases()}
    for study in desk.cases.waiting()[:count]:
        answer = desk.answer(study)
        if answer is None:
            continue
        codes = sorted(answer.answer.probabilities, key=lambda code: -answer.answer.probabilities[code])
        top = known.get(codes[0], Diagnosis(codes[0]))
        for name in ("anna", "bert"):
            person, own = people[name], top if rng.random() < 0.7 else known.get(codes[1], top)
            desk.cases.open(person, study)
            desk.cases.read(person, study, BlindOpinion((own,), int(rng.integers(8, 20)) * 5))
            desk.cases.reveal(person, study, answer.shown)
            said = Decision("accept", top)
            if rng.random() < 0.2 and own.code != top.code:
                said = Decision(
                    "override", own, "finding_missed", "The border is not the one of the cases shown."
                )
            desk.cases.decide(person, study, said, answer.shown)


class Camera:
    """Takes pictures of pages in one size and theme."""

    def __init__(self, browser: Browser, address: str, out: Path, size: str, theme: str, mark: bool) -> None:
        self.browser, self.address, self.out = browser, address, out
        self.size, self.theme, self.mark = size, theme, f"-{size}-{theme}" if mark else ""

    def sign_in(self, name: str = "") -> Page:
        """Return a page on which somebody is signed in."""
        page = new_page(self.browser, self.address, self.theme, SIZES[self.size])
        sign_in(page, self.address, name)
        page.wait_for_load_state("networkidle")
        return page

    def go(self, page: Page, path: str) -> None:
        """Open a page of the server, with its pictures."""
        page.goto(self.address + path)
        if "/cases/" in page.url:
            page.wait_for_selector("[data-state=ready]")
        page.wait_for_load_state("networkidle")

    def take(self, page: Page, name: str) -> None:
        """Take one picture."""
        page.wait_for_timeout(300)
        page.screenshot(path=self.out / f"review-{name}{self.mark}.png")


def pages(camera: Camera, desk: Desk, waiting: list[str]) -> None:
    """Take every page of the demo home; uses up two of the cases that wait."""
    first, second = waiting.pop(), waiting.pop()
    camera.take(camera.sign_in(), "sign-in")
    anna = camera.sign_in("anna")
    camera.take(anna, "worklist")
    camera.go(anna, "/password")
    camera.take(anna, "password")
    camera.go(anna, f"/cases/{first}")
    camera.take(anna, "blind")
    names = [label(disease) for disease in desk.diseases()]
    anna.fill("#blind [name=rank1]", names[0])
    anna.locator("#confidence").press("ArrowRight")
    anna.click("#blind button[type=submit]")
    anna.wait_for_selector("[data-state=ready]")
    anna.wait_for_load_state("networkidle")
    camera.take(anna, "answer")
    anna.check("[name=verdict][value=accept]")
    anna.click("#decision button[type=submit]")
    anna.wait_for_selector(".timeline >> text=decision")
    anna.wait_for_selector("[data-state=ready]")
    anna.locator("#said-title").scroll_into_view_if_needed()
    camera.take(anna, "decided")
    dispute(desk, second)
    carl = camera.sign_in("carl")
    camera.go(carl, f"/cases/{second}")
    carl.locator("#decision").scroll_into_view_if_needed()
    camera.take(carl, "adjudication")
    teach_and_lead(camera, carl)


def dispute(desk: Desk, study: str) -> None:
    """Let two readers differ about a case."""
    people = {account.name: account for account in desk.accounts.all()}
    answer = desk.answer(study)
    for name, disease in zip(("anna", "bert"), desk.diseases(), strict=False):
        desk.cases.open(people[name], study)
        desk.cases.read(people[name], study, BlindOpinion((disease,), 60))
        decision = Decision("override", disease, "finding_missed", "Two of them lie deeper.")
        desk.cases.decide(people[name], study, decision, answer.shown if answer else None)


def teach_and_lead(camera: Camera, carl: Page) -> None:
    """Take the pages of adjudicators, leads and administrators."""
    camera.go(carl, "/teach")
    outcomes = carl.locator("tbody tr td:nth-child(3)").all_inner_texts()
    outcome = max(outcomes, key=outcomes.count)
    for row, decided in zip(carl.locator("tbody tr").all(), outcomes, strict=True):
        if decided == outcome:
            row.locator("[name=study]").check()
    carl.fill("[name=disease]", outcome)
    carl.select_option("[name=basis]", "pathology")
    carl.click("[value=preview]")
    carl.wait_for_selector("#preview-title", timeout=60_000)
    camera.take(carl, "teach")
    lena = camera.sign_in("lena")
    for path, name in (("/lead", "lead"), ("/audit", "audit"), ("/nowhere", "fault")):
        camera.go(lena, path)
        camera.take(lena, name)
    otto = camera.sign_in("otto")
    camera.take(otto, "accounts")


def volumes(camera: Camera, study: str) -> None:
    """Take a volume with a length and the study before it."""
    page = camera.sign_in("bert")
    camera.go(page, f"/cases/{study}")
    page.locator("[data-pane=pane-0]").focus()
    for key in ("c", "m"):
        page.keyboard.press(key)
        page.wait_for_timeout(800)
    for key in ("Enter", *["Shift+ArrowRight"] * 5, "Enter"):
        page.keyboard.press(key)
    camera.take(page, "volume")
    page.keyboard.press("?")
    camera.take(page, "keys")


def volume_home(folder: Path) -> tuple[Desk, str]:
    """Make a home of a few volumes, one of a patient who was there before; return the case to show."""
    write_volume_phantom(folder / "phantom", diseases=6, patients=3)
    patients = sorted((folder / "phantom" / "studies").iterdir())
    axial = [p for p in patients if abs(dcmread(next(p.glob("*.dcm"))).ImageOrientationPatient[4]) > 0.5]
    chosen = max(axial, key=lambda patient: len(list(patient.glob("*.dcm"))) if patient in axial[:12] else 0)
    uids = [generate_uid(entropy_srcs=[chosen.name, part]) for part in ("study", "series")]
    for number, path in enumerate(sorted(chosen.glob("*.dcm"))):
        earlier = dcmread(path)
        earlier.StudyInstanceUID, earlier.SeriesInstanceUID = uids
        earlier.SOPInstanceUID = generate_uid(entropy_srcs=[chosen.name, str(number)])
        earlier.file_meta.MediaStorageSOPInstanceUID = earlier.SOPInstanceUID
        earlier.StudyDate = (date.fromisoformat(earlier.StudyDate) - timedelta(days=98)).strftime("%Y%m%d")
        earlier.AccessionNumber = "EARLIER"
        earlier.save_as(chosen / f"earlier{number:03d}.dcm")
    home = Home.open(folder / "home")
    ingest_folder(home, folder / "phantom" / "studies")
    desk = Desk(home)
    studies = Catalog(home).studies().sort_values("study_date")
    newest = studies.drop_duplicates("patient", keep="last")
    desk.cases.add(case_of(row) for row in newest.to_dict("records"))
    twice = studies[studies["patient"].duplicated(keep=False)]["patient"].iloc[0]
    return desk, str(newest[newest["patient"] == twice]["study"].iloc[0])


def demo_desk(home: Path, folder: Path) -> Desk:
    """Open a copy of the demo home, double reading, with some cases reviewed once the accounts are there."""
    cohort = cohort_file_of(home)
    if cohort is None:
        raise SystemExit(f"{home} is not the home of a run: make run makes one.")
    shutil.copytree(home, folder / "demo", symlinks=True)
    project = open_project(cohort, folder / "demo")
    review = replace(project.settings.review, readers=2)
    return open_desk(replace(project, settings=replace(project.settings, review=review)))


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=ROOT / ".meta_dx" / "demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--all", action="store_true", help="every size and theme")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    chosen = (
        [(size, theme) for size in SIZES for theme in ("dark", "light")] if asked.all else [("1280", "dark")]
    )
    with tempfile.TemporaryDirectory() as name, launched(webgl=False) as browser:
        folder = Path(name)
        desk = demo_desk(asked.home, folder)
        with served(desk) as address:
            review_some(desk, 12)
            waiting = desk.cases.waiting()
            for size, theme in chosen:
                pages(Camera(browser, address, asked.out, size, theme, asked.all), desk, waiting)
        desk, study = volume_home(folder)
        with served(desk) as address:
            for size, theme in chosen:
                volumes(Camera(browser, address, asked.out, size, theme, asked.all), study)


if __name__ == "__main__":
    main()
