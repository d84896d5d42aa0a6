"""The process that reads untrusted files, started by :mod:`meta_dx.dicom.sandbox` and talking with it over pipes.

It never writes a file, holds no more memory than it is allowed, leaves no core dump (which would hold a
patient's data), and ends when its parent does. The key of the home comes over the pipe: arguments and
environment of a process can be seen by others.
"""

from __future__ import annotations

# ruff: noqa: E402 - what stands before the imports is about them
import sys

# pydicom would import the first to download test files and the second for a decoder that we do not use: 0.1 s for
# each reader, which has no use for a network either.
for _unused in ("requests", "PIL"):
    sys.modules.setdefault(_unused, None)  # type: ignore[arg-type]

import ctypes
import os
import resource
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000, JPEGBaseline8Bit

from meta_dx.dicom import messages
from meta_dx.dicom.confinement import confine
from meta_dx.dicom.display import compact, shown_pixels, window_of
from meta_dx.dicom.identity import NamedPatient, Surrogates
from meta_dx.dicom.pixels import physical_pixels
from meta_dx.dicom.profile import ProfileOptions
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits, quiet, read_content, read_instance
from meta_dx.dicom.rejections import Refusal, RefusedError, RejectionCode
from meta_dx.dicom.sources import is_archive_name

if TYPE_CHECKING:
    from meta_dx.dicom.archives import Archive, Member

_DIE_WITH_PARENT = 1  # of prctl(2)
_OPEN_FILES = 64
_KEY_BYTES = 1 << 10
_MANY = 64  # members in one message

#: A reader that nobody has asked for so long ends with this status.
IDLE_SECONDS, IDLE = 60.0, 75

Send = Callable[..., None]


#: Answers one request.
Answer = Callable[[dict[str, Any], Send], None]

_Made = TypeVar("_Made")


def main() -> None:
    """Answer requests to read files until there are no more."""
    serve(lambda key, limits: _Reader(Surrogates(key), limits).answer)


def serve(begin: Callable[[bytes, ReadLimits], Answer]) -> None:
    """Answer requests until there are no more; from here on this process is held by its limits.

    Parameters
    ----------
    begin : callable
        Given the key and the limits, returns what answers a request. It is called once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C ends
    requests, answers = _own_pipes()
    _die_with_parent()

    def receive(size: int) -> bytes:
        return os.read(requests, size)

    def send(words: dict[str, Any], content: bytes = b"") -> None:
        for part in messages.packed(words, content):
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(answers, rest) :]

    words, key = messages.received(receive, _KEY_BYTES)
    limits = _limits(words["limits"])
    _restrict(limits)
    send({"ready": True})
    answer = begin(key, limits)
    loud = ExitStack()
    loud.enter_context(quiet())  # once and for all is quicker than for each file
    while True:
        if not select.select([requests], [], [], IDLE_SECONDS)[0]:
            os._exit(IDLE)
        try:
            words, _ = messages.received(receive, 0)
        except messages.BrokenMessageError:
            return
        answer(words, send)


def attempted(make: Callable[[], _Made]) -> _Made | Refusal:
    """Return what a call makes of a stored object, or why it cannot."""
    try:
        return make()
    except RefusedError as fault:
        return fault.refusal
    except MemoryError:
        return Refusal(RejectionCode.MEMORY_LIMIT)
    except Exception as fault:  # a stored object was read before: whatever is wrong now, it is damaged
        return Refusal(RejectionCode.DAMAGED_PIXELS, f"reader raised {type(fault).__name__}")


def send_refusal(send: Send, refusal: Refusal) -> None:
    """Send a refusal; the process ends when it was for want of memory."""
    send({"refused": refusal.code, "detail": refusal.detail})
    if refusal.code is RejectionCode.MEMORY_LIMIT:
        os._exit(0)  # what is left of the memory is in pieces: the next file shall find all of it


def _limits(words: dict[str, Any]) -> ReadLimits:
    profile = words["profile"]
    patients = {study: NamedPatient(**held) for study, held in words["patients"].items()}
    made = {"allow": frozenset(words["allow"]), "profile": ProfileOptions(**profile) if profile else None}
    return ReadLimits(**{**words, **made, "patients": patients})


class _Reader:
    def __init__(self, surrogates: Surrogates, limits: ReadLimits) -> None:
        self._surrogates, self._limits = surrogates, limits
        self._archive: tuple[str, Archive] | None = None

    def answer(self, words: dict[str, Any], send: Send) -> None:
        path = Path(words["path"])
        if words["do"] == "list":
            self._list(path, send)
            return
        if words["do"] == "frame":
            _send_frame(path, words["number"], words["shown"], send)
            return
        if words["do"] == "window":
            _send_window(path, words["number"], send)
            return
        if words.get("member") is None:
            result = read_instance(path, self._surrogates, limits=self._limits)
        else:
            number, size = words["member"], words["size"]
            result = read_content(
                lambda: self._opened(path).read(number, size), self._surrogates, limits=self._limits
            )
        if isinstance(result, AcceptedInstance):
            send({"row": result.row, "identities": result.identities}, result.object)
            return
        send_refusal(send, result)

    def _list(self, path: Path, send: Send) -> None:
        from meta_dx.dicom.archives import is_archive_file, references

        try:
            if is_archive_name(path.name):
                if not is_archive_file(path):
                    send({"plain": True})
                    return
                _send_members(self._opened(path).members(self._limits), send)
            else:
                _send_members(references(path, self._limits), send)
        except RefusedError as fault:
            send_refusal(send, fault.refusal)
        except MemoryError:
            send_refusal(send, Refusal(RejectionCode.MEMORY_LIMIT))
        except OSError as fault:
            send_refusal(send, Refusal(RejectionCode.UNREADABLE_FILE, type(fault).__name__))
        else:
            send({"end": True})

    def _opened(self, path: Path) -> Archive:
        # The libraries of all formats cost a seventh of the start, and few readers see an archive.
        from meta_dx.dicom.archives import Archive

        if self._archive is None or self._archive[0] != str(path):
            self._archive = None
            self._archive = (str(path), Archive(path))
        return self._archive[1]


def _send_frame(path: Path, number: int, shown: bool, send: Send) -> None:
    def decoded() -> npt.NDArray[Any]:
        dataset = dcmread(path)
        return shown_pixels(dataset, number) if shown else compact(physical_pixels(dataset, number))

    pixels = attempted(decoded)
    if isinstance(pixels, Refusal):
        send_refusal(send, pixels)
        return
    little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    send({"dtype": pixels.dtype.name, "shape": list(pixels.shape)}, little.tobytes())


def _send_window(path: Path, number: int, send: Send) -> None:
    found = attempted(lambda: window_of(dcmread(path, stop_before_pixels=True), number))
    send({"window": None if isinstance(found, Refusal) else found})


def _send_members(members: Iterator[Member], send: Send) -> None:
    some: list[list[Any]] = []
    try:
        for one in members:
            some.append([one.number, one.name, one.size, one.refused])
            if len(some) == _MANY:
                send({"members": some})
                some = []
    finally:
        if some:
            send({"members": some})


def _own_pipes() -> tuple[int, int]:
    """Take the two pipes away from everybody else: what a decoder prints must not get between the messages."""
    requests, answers = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # messages of decoders may quote a patient's data
        os.dup2(nowhere, standard)
    return requests, answers


def _die_with_parent() -> None:
    try:
        prctl = ctypes.CDLL(None).prctl
    except AttributeError:  # not Linux: the end of the pipe is all there is
        return
    prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)


def _restrict(limits: ReadLimits) -> None:
    for syntax in (JPEGBaseline8Bit, JPEG2000):  # loads the libraries while there is no limit yet
        _ = get_decoder(syntax).is_available
    for kind, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
    confine()


if __name__ == "__main__":
    main()
