"""Prepare pictures and volumes in limited processes; this one decodes none of them and believes only their form."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from meta_dx.cohort.objects import ObjectStore
from meta_dx.cohort.preprocessing import ImageOptions, Picture
from meta_dx.cohort.volumes import SeriesPart
from meta_dx.dicom.geometry import Stack
from meta_dx.dicom.pool import default_workers
from meta_dx.dicom.reading import ReadLimits
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sandbox import borrowed_reader, end_readers
from meta_dx.errors import MetaDxError
from meta_dx.home import Home

#: What starts a process that prepares pictures.
COMMAND: tuple[str, ...] = (sys.executable, "-m", "meta_dx.cohort.picture_process")

#: A prepared picture, or why there is none.
Rendered = Picture | RejectionCode

_CHUNK = 32  # pictures between two reports of progress
_FEW = 4  # the same for volumes
_FRAMES = 16  # of one object in one request
_COPIES = 5  # of a volume's voxels, as many as are held at once while it becomes small


@dataclass(frozen=True)
class Renderer:
    """Prepares the pictures of a home; made by :func:`renderer`.

    Parameters
    ----------
    home : Home
        Whose objects.
    options : ImageOptions
        How pictures are prepared.
    limits : ReadLimits
        What one object, or one volume, may take.
    volumes : mapping of str to SeriesPart
        The slices of each volume, by name; empty for pictures.
    pool : Executor
        Where the processes are.
    """

    home: Home
    options: ImageOptions
    limits: ReadLimits
    volumes: Mapping[str, SeriesPart]
    pool: Executor

    def rendered(self, keys: Sequence[tuple[str, int]]) -> Iterator[list[Rendered]]:
        """Prepare pictures, or volumes, and yield some at a time, in the order given.

        Parameters
        ----------
        keys : sequence of (str, int)
            Object and frame of each picture, or name of each volume and anything. Frames of one object that follow one
            another are read in one go.

        Yields
        ------
        list of ndarray of uint8, or RejectionCode

        Raises
        ------
        MetaDxError
            ``object_missing``, ``object_unreadable`` or ``object_damaged``: an object is not what was stored.
        """
        work: Callable[..., list[Rendered]] = render_volumes if self.volumes else render_pictures
        wanted: Sequence[Any] = [self.volumes[name] for name, _ in keys] if self.volumes else keys
        step = _FEW if self.volumes else _CHUNK
        chunks = [wanted[start : start + step] for start in range(0, len(wanted), step)]
        given = ([one] * len(chunks) for one in (self.options, self.limits))
        return self.pool.map(work, [self.home] * len(chunks), chunks, *given)


@contextmanager
def renderer(
    home: Home,
    options: ImageOptions,
    volumes: Mapping[str, SeriesPart],
    limits: ReadLimits,
    *,
    workers: int = 0,
    executor: Executor | None = None,
) -> Iterator[Renderer]:
    """Yield what prepares pictures; its processes start when they are needed and end afterwards.

    Parameters
    ----------
    home, options, volumes, limits
        As for :class:`Renderer`; a volume may take as much memory more as it needs while it becomes small.
    workers : int
        Processes; 0: one a core, eight at most.
    executor : Executor, optional
        Where the processes are started; default threads of this process.
    """
    width = workers or default_workers()
    if volumes:
        largest = 4 * _COPIES * max(math.prod(_stack(one).shape) for one in volumes.values())
        limits = replace(limits, memory_bytes=limits.memory_bytes + largest)
        width = max(1, min(width, _machine_bytes() // 2 // largest))
    if executor is not None:
        yield Renderer(home, options, limits, volumes, executor)
        return
    threads = ThreadPoolExecutor(width, "meta-dx-pictures")
    try:
        yield Renderer(home, options, limits, volumes, threads)
    finally:
        threads.shutdown(cancel_futures=True)
        end_readers(COMMAND)


def render_pictures(
    home: Home, keys: Sequence[tuple[str, int]], options: ImageOptions, limits: ReadLimits
) -> list[Rendered]:
    """Prepare some pictures; the unit of work of an executor."""
    requests: list[dict[str, Any]] = []
    for name, group in groupby(keys, key=itemgetter(0)):
        frames = [frame for _, frame in group]
        some = [frames[start : start + _FRAMES] for start in range(0, len(frames), _FRAMES)]
        requests += [{"do": "pictures", "name": name, "frames": one} for one in some]
    return _asked(home, requests, options, limits)


def render_volumes(
    home: Home, parts: Sequence[SeriesPart], options: ImageOptions, limits: ReadLimits
) -> list[Rendered]:
    """Prepare some volumes; the other unit of work."""
    return _asked(home, [_volume_request(one) for one in parts], options, limits)


def _volume_request(one: SeriesPart) -> dict[str, Any]:
    stack = _stack(one)
    names, frames = one.instances["object"].tolist(), one.instances["frame"].tolist()
    return {
        "do": "volume",
        "slices": list(zip(names, map(int, frames), strict=True)),
        "affine": stack.affine.tolist(),
        "shape": list(map(int, stack.shape)),
        "tilt": float(stack.tilt),
        "steps": len(names) + 1,
    }


def _asked(
    home: Home, requests: Sequence[dict[str, Any]], options: ImageOptions, limits: ReadLimits
) -> list[Rendered]:
    shared = {"home": str(home.root), "options": asdict(options)}
    with borrowed_reader(b"", limits, COMMAND) as reader:
        answers = reader.ask([{**one, **shared} for one in requests], _believed(options.shape))
    made: list[Rendered] = []
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(answer, Refusal):
            if answer.code is RejectionCode.UNREADABLE_FILE:
                raise _fault_of_the_home(home, request)
            made += [answer.code] * len(request.get("frames", [0]))
        elif len(answer) != len(request.get("frames", [0])):
            made += [RejectionCode.WORKER_CRASHED] * len(request.get("frames", [0]))
        else:
            made += answer
    return made


def _believed(shape: tuple[int, ...]) -> Callable[[dict[str, Any], bytes], list[Rendered]]:
    """Return what makes pictures of an answer: as many bytes as they must have, and nothing else."""

    def pictures(words: dict[str, Any], content: bytes) -> list[Rendered]:
        taken = words.get("taken")
        if not isinstance(taken, list) or not all(type(one) is bool for one in taken):
            raise ValueError("each picture was made or not")
        if len(content) != sum(taken) * math.prod(shape):
            raise ValueError("a picture has another size")
        made = iter(np.frombuffer(content, np.uint8).reshape(-1, *shape))
        return [next(made) if one else RejectionCode.DAMAGED_PIXELS for one in taken]

    return pictures


def _fault_of_the_home(home: Home, request: dict[str, Any]) -> MetaDxError:
    store = ObjectStore(home)
    names = {name for name, _ in request["slices"]} if "slices" in request else {request["name"]}
    for name in sorted(names):
        try:
            store.content(name)
        except MetaDxError as fault:
            return fault
    return MetaDxError(
        "object_unreadable",
        f"An object under {home.objects} could not be read for a moment: run again; if that repeats, check the disk.",
    )


def _stack(one: SeriesPart) -> Stack:
    if not isinstance(one.part, Stack):
        raise TypeError("only a stack becomes a volume")
    return one.part


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
