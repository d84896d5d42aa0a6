"""What an ingest survives: kill -9 at many moments, a full disk, a read-only disk, a second ingest beside it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from meta_dx.cohort.catalog import Catalog
from meta_dx.cohort.diagnoses import active_diagnoses, import_diagnoses
from meta_dx.cohort.ingest import IngestOptions, ingest_folder
from meta_dx.errors import MetaDxError
from meta_dx.home import Home
from meta_dx.records.vault import Vault
from tests.cohort import ingest_killer
from tests.dicom.archive_builders import write_archive
from tests.dicom.builders import picture, uid_of, write_instance, write_study
from tests.processes import runs

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path) -> Path:
    for number in range(6):
        write_study(tmp_path / "source" / str(number), images=3, study=f"S{number}", patient=f"P{number}")
    (tmp_path / "source" / "notes.txt").write_text("notes")
    write_instance(tmp_path / "source", name="report.dcm", PixelData=None)
    return tmp_path / "source"


@pytest.fixture
def archives(tmp_path, source) -> Path:
    """A source with archives in it, one of them cut."""
    members = {path.name: path.read_bytes() for path in sorted((source / "5").iterdir())}
    shutil.rmtree(source / "5")
    write_archive(source / "5.tar.gz", {**members, "../out": b"x"})
    write_archive(source / "6.zip", {f"copies/{name}": content for name, content in members.items()})
    whole = write_archive(source / "7.tar", members).read_bytes()
    (source / "7.tar").write_bytes(whole[:3000])
    return source


def test_killed_at_any_moment_and_run_again_it_ends_with_the_same_bytes(tmp_path, archives):
    fresh = Home.open(tmp_path / "fresh")
    Vault.open(fresh).close()  # one key for all histories
    shutil.copytree(fresh.root, tmp_path / "control")
    done = subprocess.run(
        [sys.executable, ingest_killer.__file__, fresh.root, archives, tmp_path / "control", "30"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed=True") == 30


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.3])
def test_a_reader_that_is_killed_at_any_moment_changes_nothing(tmp_path, archives, hostile, delay):
    home = Home.open(tmp_path / "home")
    Vault.open(home).close()
    shutil.copytree(home.root, tmp_path / "control")
    control = Home.open(tmp_path / "control")
    ingest_folder(control, archives)
    hostile.write_text("")
    killed = []

    def kill() -> None:
        until = time.monotonic() + 60
        while not hostile.read_text() and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(delay)
        for pid in {int(line) for line in hostile.read_text().split()}:
            if runs(pid):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    ingest_folder(home, archives, options=IngestOptions(workers=1))
    thread.join()
    assert killed or delay > 0
    for store in ("catalog", "objects"):
        assert ingest_killer.tree(home.root / store) == ingest_killer.tree(control.root / store)


def test_two_ingests_at_once_take_everything_once(tmp_path, source):
    home = Home.open(tmp_path / "home")
    command = "import sys; from meta_dx.home import Home; from meta_dx.cohort.ingest import ingest_folder; "
    command += "print(ingest_folder(Home.open(sys.argv[1]), sys.argv[2]).accepted)"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", command, home.root, source], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    accepted = [int(run.communicate(timeout=120)[0]) for run in runs]
    assert all(run.returncode == 0 for run in runs) and max(accepted) == 18
    catalog = Catalog(home)
    assert len(catalog.instances()) == catalog.instances()["instance"].nunique() == 18
    assert catalog.batches() == ["b0001"]


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system can be mounted by root only")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_said_and_leaves_the_old_state(tmp_path, small_disk):
    home = Home.open(small_disk / "home")
    write_study(tmp_path / "first", study="S1", patient="P1")
    ingest_folder(home, tmp_path / "first")
    before = ingest_killer.tree(home.catalog)
    for number in range(40):
        pixels = picture(number, (256, 256))
        write_instance(tmp_path / "second", patient=f"X{number}", pixels=pixels)
    with pytest.raises(MetaDxError) as fault:
        ingest_folder(home, tmp_path / "second")
    assert fault.value.code == "disk_full" and str(small_disk) in str(fault.value)
    assert ingest_killer.tree(home.catalog) == before
    for path in list((tmp_path / "second").iterdir())[5:]:
        path.unlink()
    for path in home.objects.rglob("*.dcm"):  # the user frees some space elsewhere
        if path.stat().st_size > 100_000:
            path.unlink()
    assert ingest_folder(home, tmp_path / "second").accepted == 5


def test_a_disk_that_fills_at_any_place_is_said(tmp_path, small_disk, source):
    home = Home.open(small_disk / "home")
    Vault.open(home).close()
    codes = set()
    for free in range(0, 400_000, 20_000):
        _fill(small_disk, free)
        try:
            ingest_folder(home, source)
            break
        except MetaDxError as fault:
            codes.add(fault.code)
            assert Catalog(home).batches() == []
    (small_disk / "ballast").unlink()
    ingest_folder(home, source)
    assert codes <= {"disk_full", "disk_fault"} and "disk_full" in codes
    assert len(Catalog(home).instances()) == 18


def _fill(disk: Path, free: int) -> None:
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    about = os.statvfs(disk)
    ballast.write_bytes(bytes(max(0, about.f_bavail * about.f_frsize - free)))


def test_a_read_only_disk_is_said(tmp_path, small_disk, source):
    home = Home.open(small_disk / "home")
    ingest_folder(home, source)
    table = tmp_path / "d.csv"
    header = "study_instance_uid,patient_id,accession_number,code,coding_scheme,meaning"
    table.write_text(f"{header}\n{uid_of('S1')},P1,,D1,X,Alpha\n")
    import_diagnoses(home, table)
    write_instance(source, name="new.dcm")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for work in (lambda: ingest_folder(home, source), lambda: Home.open(small_disk / "new")):
        with pytest.raises(MetaDxError) as fault:
            work()
        assert fault.value.code == "read_only", fault.value
    assert len(Catalog(home).instances()) == 18 and len(active_diagnoses(home)) == 1
