import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path

import pytest

from meta_dx.dicom import pool as pools
from meta_dx.dicom.pool import DASK_SCHEDULER, Pool, default_workers, read_all, read_chunk, reading_pool
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sources import FoundFile, found_files
from meta_dx.errors import MetaDxError
from tests.dicom.builders import write_instance
from tests.processes import runs

KEY = b"a key of the test, 32 bytes long"
ROOT = Path(__file__).parents[2]


def some_files(folder: Path, count: int) -> list[FoundFile]:
    for number in range(count):
        if number % 5 == 4:
            (folder / f"{number:04d}").write_text("no DICOM")
        else:
            write_instance(folder, name=f"{number:04d}", patient=f"P{number}")
    return found_files(folder)


def outcome(result):
    return result.row["object"] if isinstance(result, AcceptedInstance) else result.code


def read(files, executor=None, workers=1, limits=None) -> list:
    with reading_pool(executor, workers) as pool:
        return [(f, outcome(r)) for f, r in read_all(files, KEY, limits or ReadLimits(), pool)]


def test_every_executor_gives_the_same_results_in_the_same_order(tmp_path):
    files = some_files(tmp_path, 45)
    alone = read(files)
    assert [file for file, _ in alone] == files
    assert read(files, workers=3) == alone
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as executor:
        assert read(files, executor) == alone


def test_hostile_files_cost_the_files_beside_them_nothing(tmp_path, hostile):
    files = some_files(tmp_path / "s", 45)
    limits = ReadLimits(seconds=1.0, memory_bytes=1 << 29)
    for number, act in ((3, "ABORT"), (16, "HANG"), (17, "EXIT"), (30, "ABORT")):
        write_instance(tmp_path / "s", name=f"{number:04d}", patient=act)
    codes = [code for _, code in read(files, workers=2, limits=limits)]
    assert {
        n: code.value for n, code in enumerate(codes) if isinstance(code, RejectionCode) and n % 5 != 4
    } == {
        3: "worker_crashed",
        16: "time_limit",
        17: "worker_crashed",
        30: "worker_crashed",
    }
    assert Counter(codes)[RejectionCode.NOT_DICOM] == 9


def test_few_results_wait_in_memory(tmp_path):
    files = some_files(tmp_path, 20) * 40

    class Counting(ThreadPoolExecutor):
        submitted = 0

        def submit(self, *args, **kwargs) -> Future:
            Counting.submitted += 1
            return super().submit(*args, **kwargs)

    with Counting(1) as executor, reading_pool(executor, 1) as pool:
        results = read_all(iter(files), KEY, ReadLimits(), pool)
        next(results)
        assert Counting.submitted <= 3 < len(files) / 16
        results.close()


class Acting:
    """Stands for a reader: does what ``act`` does with a number, and refuses files whose number it returns True for."""

    def __init__(self, act) -> None:
        self.act, self.read_so_far = act, 0

    def read(self, files, until):
        results = []
        for file in files:
            hung = self.act(int(file.place))
            self.read_so_far += 1
            results.append(Refusal(RejectionCode.TIME_LIMIT if hung else RejectionCode.TRUNCATED))
            if results[-1].code is until:
                break
        return results


def read_by(reader, files, width, monkeypatch):
    monkeypatch.setattr(pools, "borrowed_reader", lambda *_: nullcontext(reader))
    with ThreadPoolExecutor(width) as threads:
        return list(read_all(iter(files), KEY, ReadLimits(), Pool(threads, width)))


def numbered(count: int, size: int = 1) -> list[FoundFile]:
    return [FoundFile(str(number), size, 0) for number in range(count)]


def test_while_a_file_hangs_the_other_workers_go_on(monkeypatch):
    others_read = threading.Event()

    def act(number: int) -> bool:
        if number == 0:
            return others_read.wait(60)
        if reader.read_so_far >= 600:
            others_read.set()
        return False

    reader, files = Acting(act), numbered(700)
    found = read_by(reader, files, 2, monkeypatch)
    assert others_read.is_set()
    assert [file for file, _ in found] == files
    assert [file.place for file, result in found if result.code is RejectionCode.TIME_LIMIT] == ["0"]


def test_while_a_file_hangs_only_so_many_bytes_wait_in_memory(monkeypatch):
    monkeypatch.setattr(pools, "_AHEAD_BYTES", 128 * pools._ROW_BYTES)
    too_many, waited = threading.Event(), []

    def act(number: int) -> bool:
        if number == 0:
            waited.append(too_many.wait(2))
        elif reader.read_so_far > 128 + 5 * 16:
            too_many.set()
        return number == 0

    reader = Acting(act)
    assert len(read_by(reader, numbered(600), 2, monkeypatch)) == 600
    assert waited == [False]


def test_of_several_files_that_hang_in_one_task_only_the_first_is_waited_for_alone(monkeypatch):
    together = threading.Barrier(3)

    def act(number: int) -> bool:
        if number in (5, 9, 12):
            together.wait(60)  # raises where they are read one after the other
        return number in (2, 5, 9, 12)

    found = read_by(Acting(act), files := numbered(40), 3, monkeypatch)
    assert [file for file, _ in found] == files
    hung = [int(file.place) for file, result in found if result.code is RejectionCode.TIME_LIMIT]
    assert hung == [2, 5, 9, 12]


def test_large_files_make_small_tasks(tmp_path):
    path = write_instance(tmp_path)
    chunks = []

    class Noting(Executor):
        def submit(self, work, files, *_):
            chunks.append(len(files))
            future = Future()
            future.set_result([Refusal(RejectionCode.TRUNCATED)] * len(files))
            return future

    files = [FoundFile(str(path), size, 0) for size in [1] * 20 + [1 << 26] * 3 + [1] * 2]
    assert len(list(read_all(files, KEY, ReadLimits(), Pool(Noting(), 1)))) == 25
    assert chunks == [16, 5, 1, 1, 2]


def test_a_file_that_must_not_be_opened_is_not_opened(tmp_path):
    path = write_instance(tmp_path)
    file = FoundFile(str(path), 1, 1, RejectionCode.LINK_OUTSIDE)
    assert read_chunk([file], KEY, ReadLimits()) == [Refusal(RejectionCode.LINK_OUTSIDE)]


def test_a_task_whose_worker_died_is_done_again_but_not_for_ever(tmp_path):
    files = some_files(tmp_path, 20)

    class Dying(ThreadPoolExecutor):
        deaths = 0

        def submit(self, work, *args):
            if Dying.deaths > 0:
                Dying.deaths -= 1
                future = Future()
                future.set_exception(BrokenProcessPool("died"))
                return future
            return super().submit(work, *args)

    with Dying(1) as executor:
        expected = read(files, executor)
        Dying.deaths = 3
        assert read(files, executor) == expected
        Dying.deaths = 40
        with pytest.raises(MetaDxError) as fault:
            read(files, executor)
    assert fault.value.code == "worker_died"


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_executor_that_is_broken_for_good_is_said_in_one_sentence(tmp_path):
    files = some_files(tmp_path, 5)
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as executor:
        with pytest.raises(Exception, match="terminated"):
            executor.submit(_die).result()
        with pytest.raises(MetaDxError) as fault:
            read(files, executor)
    assert fault.value.code == "worker_died"


def test_an_executor_that_is_given_is_used_and_otherwise_there_are_as_many_threads_as_workers():
    with ThreadPoolExecutor(1) as mine, reading_pool(mine, 4) as pool:
        assert pool.executor is mine
    with reading_pool(None, 3) as pool:
        assert isinstance(pool.executor, ThreadPoolExecutor) and pool.width == 3
    with reading_pool(None, 0) as pool:
        assert pool.width == default_workers() >= 1


def test_no_reader_is_left_when_the_reading_is_done_or_given_up(tmp_path, hostile):
    files = some_files(tmp_path / "s", 40)
    read(files, workers=2)
    with reading_pool(None, 2) as pool:
        results = read_all(files, KEY, ReadLimits(), pool)
        next(results)
        results.close()
    for pid in map(int, hostile.read_text().split()):
        assert not runs(pid)


@pytest.mark.parametrize("act", ["HANG", "P1"])
def test_no_reader_outlives_a_parent_that_was_killed(tmp_path, hostile, act):
    write_instance(tmp_path / "s", patient=act)
    program = (
        "import sys; from pathlib import Path; from meta_dx.dicom import child, pool, reading, sources\n"
        f"child.COMMAND = (sys.executable, '-m', 'tests.dicom.hostile_reader', {str(hostile)!r})\n"
        f"files = sources.found_files(Path({str(tmp_path / 's')!r}))\n"
        f"pool.read_chunk(files, {KEY!r}, reading.ReadLimits()); print('read', flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if act == "P1":
        parent.stdout.readline()  # it has been read, and the reader rests
    while not hostile.read_text():
        time.sleep(0.05)
    (pid,) = map(int, hostile.read_text().split())
    assert runs(pid)
    time.sleep(
        1.0
    )  # into the file that hangs; the reader tells the system in its first moments whom to follow
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 20
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not runs(pid)


def test_a_cluster_that_is_not_there_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setenv(DASK_SCHEDULER, "no-such-protocol://127.0.0.1:1")
    with pytest.raises(MetaDxError) as fault, reading_pool(None, 1):
        pass
    assert fault.value.code == "dask_unreachable"
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MetaDxError, match=r"install meta-dx\[dask\]") as fault, reading_pool(None, 1):
        pass
    assert fault.value.code == "dask_missing"
