"""Read many files in supervised processes, here or on a cluster, and give the results back in order."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_dx.dicom.reading import AcceptedInstance, ReadLimits
from meta_dx.dicom.rejections import RejectionCode
from meta_dx.dicom.sandbox import Listing, Result, borrowed_reader, end_readers
from meta_dx.dicom.sources import FoundFile
from meta_dx.errors import MetaDxError

#: Names the scheduler of a Dask cluster that reads.
DASK_SCHEDULER = "META_DX_DASK_SCHEDULER"

_CHUNK = 16  # files in one task: few enough to keep memory low, enough to hide the cost of a task
_CHUNK_BYTES = 1 << 25  # after which a task takes no further file
_AHEAD_BYTES = 1 << 28  # of results that wait for one that is due before them
_ROW_BYTES = 1 << 14  # of a result, beside the object
_TRIES = 4  # of one task, when the workers of a cluster die
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Pool:
    """Where files are read.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Runs :func:`read_chunk`; each of its workers has a reading process of its own.
    width : int
        How many of them there are.
    """

    executor: Executor
    width: int


def read_all(
    files: Iterable[FoundFile], key: bytes, limits: ReadLimits, pool: Pool
) -> Iterator[tuple[FoundFile, Result]]:
    """Read files and yield each with what became of it, in the order given.

    Parameters
    ----------
    files : iterable of FoundFile
        The files; asked for as they are needed.
    key : bytes
        The key of the home.
    limits : ReadLimits
        What one file may take.
    pool : Pool
        Where to read. Only a few results wait in memory, however many files there are; while a file hangs that
        is due first, the others are read on, until 256 MiB wait.

    Yields
    ------
    tuple of FoundFile and (AcceptedInstance or Refusal)

    Raises
    ------
    MetaDxError
        ``worker_died`` when workers of the executor died again and again.
    """
    waiting: deque[_Task] = deque()
    chunks = _chunks(files)
    more = True
    try:
        while True:
            while more and _room(waiting, pool.width):
                chunk = next(chunks, None)
                if chunk is None:
                    more = False
                else:
                    waiting.append(_Task(pool.executor, chunk, key, limits))
            if not waiting:
                return
            if (results := waiting[0].results) is None:
                wait([task.future for task in waiting if task.results is None], return_when=FIRST_COMPLETED)
                _settle(waiting)
            else:
                yield from zip(waiting.popleft().files, results, strict=True)
    finally:
        for task in waiting:
            task.future.cancel()


def contents_of(container: FoundFile, key: bytes, limits: ReadLimits, pool: Pool) -> Listing:
    """List what an archive or a table of contents holds, in a reading process."""
    future = _submitted(pool.executor, list_container, container, key, limits)
    listing: Listing = _result(pool.executor, future, list_container, container, key, limits)
    return listing


def read_chunk(files: Sequence[FoundFile], key: bytes, limits: ReadLimits) -> list[Result]:
    """Read some files; the unit of work of an executor.

    Returns
    -------
    list of AcceptedInstance or Refusal
        Of all files, or of the first ones up to one that ran into the time limit: what comes after it need not wait
        for more such files one after the other, and is for other workers.
    """
    with borrowed_reader(key, limits) as reader:
        return reader.read(files, until=RejectionCode.TIME_LIMIT)


def list_container(container: FoundFile, key: bytes, limits: ReadLimits) -> Listing:
    """List one container; the other unit of work."""
    with borrowed_reader(key, limits) as reader:
        return reader.contents(container)


@contextmanager
def reading_pool(executor: Executor | None, workers: int) -> Iterator[Pool]:
    """Yield where to read.

    Parameters
    ----------
    executor : concurrent.futures.Executor, optional
        One that is at hand. Otherwise the Dask cluster whose scheduler ``META_DX_DASK_SCHEDULER`` names, or
        else threads of this process.
    workers : int
        Threads, each with a reading process; 0 for one a core, eight at most.

    Raises
    ------
    MetaDxError
        ``dask_missing`` or ``dask_unreachable``.
    """
    try:
        if executor is not None:
            yield Pool(executor, workers or default_workers())
        elif os.environ.get(DASK_SCHEDULER):
            with _dask(os.environ[DASK_SCHEDULER]) as pool:
                yield pool
        else:
            count = workers or default_workers()
            with ThreadPoolExecutor(count, "meta-dx-reader") as threads:
                yield Pool(threads, count)
    finally:
        end_readers()


def default_workers() -> int:
    """Return the number of cores that this process may use, eight at most."""
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)))


def can_be_opened(path: Path) -> bool:
    """Tell whether a file that could not be read before can be read now."""
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError:
        return False
    return True


@contextmanager
def _dask(scheduler: str) -> Iterator[Pool]:
    try:
        from distributed import Client
    except ImportError as fault:
        raise MetaDxError(
            "dask_missing",
            f"{DASK_SCHEDULER} is set, but Dask is not installed: install meta-dx[dask], or unset it.",
        ) from fault
    try:
        client = Client(scheduler, timeout=30, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as fault:
        raise MetaDxError(
            "dask_unreachable",
            f"No Dask scheduler answers at {scheduler} ({type(fault).__name__}): start it, or mend or unset "
            f"{DASK_SCHEDULER}.",
        ) from fault
    with client, client.get_executor(pure=False) as executor:
        yield Pool(executor, max(1, sum(client.nthreads().values())))


def _chunks(files: Iterable[FoundFile]) -> Iterator[list[FoundFile]]:
    chunk: list[FoundFile] = []
    size = 0
    for file in files:
        chunk.append(file)
        size += file.size
        if len(chunk) == _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class _Task:
    """Files that are being read; ``results`` is None until they have been."""

    def __init__(self, executor: Executor, files: list[FoundFile], key: bytes, limits: ReadLimits) -> None:
        self.files = files
        self.results: list[Result] | None = None
        self.bytes = sum(file.size + _ROW_BYTES for file in files)
        self._executor, self._reading, self._tries = executor, (key, limits), 1
        self.future = self._submitted()

    def settle(self) -> list[_Task]:
        """Take over the results; what was not read after a file that hung comes back as tasks, each of one file."""
        try:
            results: list[Result] = self.future.result()
        except _deaths() as fault:
            if self._tries == _TRIES:
                raise _died() from fault
            self._tries += 1
            self.future = self._submitted()
            return []
        self.results = results
        rest, self.files = self.files[len(results) :], self.files[: len(results)]
        objects = (len(one.object) for one in results if isinstance(one, AcceptedInstance))
        self.bytes = sum(objects) + len(results) * _ROW_BYTES  # a file that was packed has grown
        return [_Task(self._executor, [file], *self._reading) for file in rest]

    def _submitted(self) -> Future[list[Result]]:
        return _submitted(self._executor, read_chunk, self.files, *self._reading)


def _room(waiting: deque[_Task], width: int) -> bool:
    """Tell whether one more task may wait: of a few always; of more while the one that is due first hangs."""
    if len(waiting) <= 2 * width:
        return True
    if waiting[0].future.done() or sum(task.results is None for task in waiting) > 2 * width:
        return False
    return sum(task.bytes for task in waiting) < _AHEAD_BYTES


def _settle(waiting: deque[_Task]) -> None:
    """Take over the results of all tasks that are done; what they give back takes the places after them."""
    for place, task in reversed(list(enumerate(waiting))):
        if task.results is None and task.future.done():
            for one in reversed(task.settle()):
                waiting.insert(place + 1, one)


def _submitted(executor: Executor, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    try:
        return executor.submit(work, *arguments)
    except BrokenExecutor as fault:
        raise _died() from fault


def _result(executor: Executor, future: Future[Any], work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a task returned; one whose worker died is done again."""
    for attempt in range(_TRIES):
        try:
            return future.result()
        except _deaths() as fault:
            if attempt == _TRIES - 1:
                raise _died() from fault
            future = _submitted(executor, work, *arguments)
    raise _died()


def _deaths() -> tuple[type[BaseException], ...]:
    distributed = sys.modules.get("distributed")  # whoever uses a cluster has imported it
    return (BrokenExecutor,) if distributed is None else (BrokenExecutor, distributed.KilledWorker)


def _died() -> MetaDxError:
    return MetaDxError(
        "worker_died",
        "A worker of the executor died again and again while it read files (no memory left, or the machine is "
        "gone): run again with more memory or without the executor.",
    )
