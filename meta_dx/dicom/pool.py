"""Read many files, in this process or in others, and give the results back in order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from meta_dx.dicom.identity import Surrogates
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits, read_instance
from meta_dx.dicom.rejections import Refusal
from meta_dx.dicom.sources import FoundFile
from meta_dx.errors import MetaDxError

_CHUNK = 16  # files in one task: few enough to keep memory low, enough to hide the cost of a task
_WAITING = 8  # tasks in flight

Result = AcceptedInstance | Refusal


def read_all(
    files: Sequence[FoundFile], key: bytes, limits: ReadLimits, executor: Executor | None = None
) -> Iterator[tuple[FoundFile, Result]]:
    """Read files and yield each with what became of it, in the order given.

    Parameters
    ----------
    files : sequence of FoundFile
        The files.
    key : bytes
        The key of the home.
    limits : ReadLimits
        What one file may take.
    executor : concurrent.futures.Executor, optional
        Where to read; default this process. Only a few results wait in memory, however many files there are.

    Yields
    ------
    tuple of FoundFile and (AcceptedInstance or Refusal)

    Raises
    ------
    MetaDxError
        ``worker_died`` when a process of the executor died.
    """
    if executor is None:
        surrogates = Surrogates(key)
        for file in files:
            yield file, _read(file, surrogates, limits)
        return
    chunks = (files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK))
    waiting: deque[tuple[Sequence[FoundFile], Future[list[Result]]]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, executor.submit(read_chunk, chunk, key, limits)))
            if len(waiting) == _WAITING:
                yield from _finished(*waiting.popleft())
        while waiting:
            yield from _finished(*waiting.popleft())
    except BrokenExecutor as fault:
        raise MetaDxError(
            "worker_died",
            "A process that read files died (no memory left, or a decoder crashed): "
            "run again with more memory or with [ingest] workers = 1.",
        ) from fault
    finally:
        for _, future in waiting:
            future.cancel()


def read_chunk(files: Sequence[FoundFile], key: bytes, limits: ReadLimits) -> list[Result]:
    """Read some files in whatever process this runs in."""
    surrogates = Surrogates(key)
    return [_read(file, surrogates, limits) for file in files]


@contextmanager
def reading_pool(executor: Executor | None, workers: int) -> Iterator[Executor | None]:
    """Yield the executor to read with: the one given, none for one worker, or a new pool of processes."""
    if executor is not None or workers == 1:
        yield executor
        return
    # Never a plain fork: a library that holds threads or a CUDA context would break in the children.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield pool


def can_be_opened(path: Path) -> bool:
    """Tell whether a file that could not be read before can be read now."""
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError:
        return False
    return True


def _finished(chunk: Sequence[FoundFile], future: Future[list[Result]]) -> Iterator[tuple[FoundFile, Result]]:
    yield from zip(chunk, future.result(), strict=True)


def _read(file: FoundFile, surrogates: Surrogates, limits: ReadLimits) -> Result:
    return Refusal(file.refused) if file.refused else read_instance(file.path, surrogates, limits=limits)
