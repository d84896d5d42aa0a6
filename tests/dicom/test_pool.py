import os
import signal
import sys
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from meta_dx.dicom.pool import read_all, reading_pool
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sources import FoundFile, found_files
from meta_dx.errors import MetaDxError
from tests.dicom.builders import write_instance

KEY = b"a key of the test, 32 bytes long"


def some_files(folder: Path, count: int) -> list[FoundFile]:
    for number in range(count):
        if number % 5 == 4:
            (folder / f"{number:04d}").write_text("no DICOM")
        else:
            write_instance(folder, name=f"{number:04d}", patient=f"P{number}")
    return found_files(folder)


def outcome(result):
    return result.row["object"] if isinstance(result, AcceptedInstance) else result.code


def test_an_executor_gives_the_same_results_in_the_same_order(tmp_path):
    files = some_files(tmp_path, 45)
    alone = [(file, outcome(result)) for file, result in read_all(files, KEY, ReadLimits())]
    assert [file for file, _ in alone] == files
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        assert [(f, outcome(r)) for f, r in read_all(files, KEY, ReadLimits(), pool)] == alone


def test_few_results_wait_in_memory(tmp_path):
    files = some_files(tmp_path, 20) * 40

    class Counting(ThreadPoolExecutor):
        submitted = 0

        def submit(self, *args, **kwargs) -> Future:
            Counting.submitted += 1
            return super().submit(*args, **kwargs)

    with Counting(1) as pool:
        results = read_all(files, KEY, ReadLimits(), pool)
        next(results)
        assert Counting.submitted <= 8 < len(files) / 16
        results.close()


def test_a_file_that_must_not_be_opened_is_not_opened(tmp_path):
    path = write_instance(tmp_path)
    file = FoundFile(path, 1, 1, RejectionCode.LINK_OUTSIDE)
    assert list(read_all([file], KEY, ReadLimits())) == [(file, Refusal(RejectionCode.LINK_OUTSIDE))]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_worker_that_dies_is_said_in_one_sentence(tmp_path):
    files = some_files(tmp_path, 5)
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        with pytest.raises(Exception, match="terminated"):
            pool.submit(_die).result()
        with pytest.raises(MetaDxError) as fault:
            list(read_all(files, KEY, ReadLimits(), pool))
    assert fault.value.code == "worker_died"


def test_one_worker_needs_no_pool_and_a_given_executor_is_used():
    with reading_pool(None, 1) as pool:
        assert pool is None
    with ThreadPoolExecutor(1) as mine, reading_pool(mine, 4) as pool:
        assert pool is mine
    with reading_pool(None, 2) as pool:
        assert isinstance(pool, ProcessPoolExecutor)
