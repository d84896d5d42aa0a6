"""Rules for the whole suite: one thread a process, nothing leaves the machine, no silent skips in CI."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orthanc import PASSWORD, USER, Orthanc
from tests.processes import runs

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

ALLOWED = Path(__file__).with_name("allowed_skips.txt")
_skipped: list[tuple[str, str]] = []


def _allowed() -> list[str]:
    lines = ALLOWED.read_text().splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append((report.nodeid, reason))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if hasattr(session.config, "workerinput") or not os.environ.get("CI"):
        return
    unexpected = [(node, why) for node, why in _skipped if not any(node.startswith(a) for a in _allowed())]
    if unexpected:
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        for node, why in unexpected:
            terminal.write_line(f"SKIPPED BUT NOT ALLOWED: {node}: {why} (tests/allowed_skips.txt)", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real cohorts, named by META_DX_DATA."""
    folder = os.environ.get("META_DX_DATA")
    if not folder:
        pytest.skip("META_DX_DATA is not set: this test reads the real cohorts")
    return Path(folder)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let files crash their readers (``dicom/hostile_reader.py``); gives a file with the ids of all readers."""
    from meta_dx.dicom import child
    from meta_dx.dicom.sandbox import end_readers

    log = tmp_path / "readers"
    log.touch()
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-m", "tests.dicom.hostile_reader", str(log)))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    yield log
    end_readers()
    assert not any(runs(pid) for pid in map(int, log.read_text().split()))


@pytest.fixture(scope="session")
def running_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    archive = Orthanc(tmp_path_factory.mktemp("orthanc"))
    archive.start()
    yield archive
    archive.stop()


@pytest.fixture
def orthanc(running_orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Orthanc:
    """One Orthanc for all tests of a worker, emptied before each; its login is in the environment."""
    from meta_dx.dicom.pacs.credentials import PASSWORD_VARIABLE, TOKEN_VARIABLE, USER_VARIABLE

    monkeypatch.setenv(USER_VARIABLE, USER)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    running_orthanc.empty()
    return running_orthanc
