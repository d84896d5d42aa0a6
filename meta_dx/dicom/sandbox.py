"""Read untrusted files in a process of its own, with limits, and believe only what has the right form.

This process opens none of them. A file that crashes, hangs or swells its reader is refused with a code, the
reader is replaced, and the next file is read.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from meta_dx.dicom.child import Child, Loss, LostError, started
from meta_dx.dicom.display import Window
from meta_dx.dicom.frames import FRAME_FIELDS, MOST_FRAMES
from meta_dx.dicom.header import LONGEST_IDENTITY, LONGEST_UID
from meta_dx.dicom.reading import AcceptedInstance, ReadLimits
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.dicom.sources import FoundFile, is_archive_name, member_of, referenced_file

Result = AcceptedInstance | Refusal
Words = dict[str, Any]
_Answer = TypeVar("_Answer")

_AHEAD = 2  # requests that wait in the pipe of 64 KiB; a path has 4 KiB, in JSON 24 KiB at worst
_HEADER_BYTES = 1 << 24  # by which an object may be larger than its file, unpacked
_NAME = 1 << 16  # letters in the name of a member
_DETAIL = re.compile(r"[\w ,.;:()'/-]{0,200}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UID = re.compile(r"2\.25\.\d{1,39}", re.ASCII)
_IDENTITIES = {
    "study": _UID,
    "series": _UID,
    "instance": _UID,
    "patient": re.compile(r"P[A-Z2-7]{16}"),
    "accession": re.compile(r"A[A-Z2-7]{15}"),
}
_LONGEST = dict.fromkeys(_IDENTITIES, LONGEST_IDENTITY) | dict.fromkeys(
    ("study", "series", "instance"), LONGEST_UID
)
_TEXT = 1024  # letters in a column of a row: 16 code strings of 32 are the most
_NUMBERS = MOST_FRAMES * len(FRAME_FIELDS)
_ROW = ((str, _TEXT), (list, _NUMBERS), (dict, 0))
_FORMS = {**_IDENTITIES, "object": _DIGEST, "content": _DIGEST, "pixels": _DIGEST}


@dataclass(frozen=True)
class Listing:
    """What an archive or a table of contents holds.

    Parameters
    ----------
    files : list of FoundFile
        Its files, those that must not be read included.
    refusal : Refusal, optional
        What is wrong with the whole; the files before that place count all the same.
    plain : bool
        It is no archive, only named like one.
    """

    files: list[FoundFile] = field(default_factory=list)
    refusal: Refusal | None = None
    plain: bool = False


class Reader:
    """Reads files one after the other in a process that is replaced when it is lost.

    Parameters
    ----------
    key : bytes
        The key of the home.
    limits : ReadLimits
        What one file may take.
    command : tuple of str
        What starts the process, where that is not the reader of files.

    Notes
    -----
    What becomes of a file does not depend on the files before it: where a reader is lost that has read others,
    or that the system killed (it does so when memory is short), the file is read once more, alone in a new one.
    """

    def __init__(self, key: bytes, limits: ReadLimits, command: tuple[str, ...] = ()) -> None:
        self._key, self._limits, self._command = key, limits, command
        self._most = max(limits.file_bytes, limits.decoded_bytes) + _HEADER_BYTES
        self._child: Child | None = None
        self._spare: Child | None = None

    def read(self, files: Sequence[FoundFile], until: RejectionCode | None = None) -> list[Result]:
        """Read files in order; every one has a result, whatever the others do to the process.

        Parameters
        ----------
        files : sequence of FoundFile
            The files.
        until : RejectionCode, optional
            A file that costs its reader under this code is the last one: those behind it have no result.
        """
        requests = [_request(file) for file in files if file.refused is None]
        answers, results = iter(self.ask(requests, _accepted, until)), []
        for file in files:
            found = next(answers, None) if file.refused is None else Refusal(file.refused)
            if found is None:
                break
            results.append(found)
        return results

    def ask(
        self,
        requests: Sequence[Words],
        believed: Callable[[Words, bytes], _Answer],
        until: RejectionCode | None = None,
    ) -> list[_Answer | Refusal]:
        """Ask for several things; every one has an answer, whatever the others do to the process.

        Parameters
        ----------
        requests : sequence of dict
            What is asked, in order. ``steps`` says how often the reader may report that it goes on, each time with
            its full time again; 0 where it is absent.
        believed : callable
            Makes a result of an answer, and raises ``ValueError`` where its form is not right.
        until : RejectionCode, optional
            What costs a reader under this code is the last thing that is asked.

        Returns
        -------
        list
            Results, and refusals for what was refused or cost a reader.
        """
        answers: list[_Answer | Refusal] = []
        while len(answers) < len(requests):
            self._ask_until_lost(requests[len(answers) :], believed, answers)
            newest = answers[-1]
            if until is not None and isinstance(newest, Refusal) and newest.code is until:
                break
        return answers

    def contents(self, container: FoundFile) -> Listing:
        """List what lies in an archive, or what a table of contents names."""
        child = self._ready()
        old = child.answers > 0
        try:
            return self._listed(child, container)
        except LostError as lost:
            self._replace()
            if not lost.loss.excuses(old):
                return Listing(refusal=lost.loss.refusal)
        try:
            return self._listed(self._ready(), container)
        except LostError as lost:
            self._replace()
            return Listing(refusal=lost.loss.refusal)

    def _listed(self, child: Child, container: FoundFile) -> Listing:
        members: list[tuple[int, str, int, RejectionCode | None]] = []
        child.ask({"do": "list", "path": str(container.path)})
        try:
            while "members" in (words := child.answer(0)[0]):
                members += _members(words["members"], self._limits.archive_members - len(members))
            refusal = _refusal(words) if "refused" in words else None
        except ValueError as fault:
            raise LostError(_nonsense()) from fault
        if refusal is not None and refusal.code is RejectionCode.MEMORY_LIMIT:
            raise LostError(Loss(refusal))
        return Listing(_found(container, members), refusal, plain=words.get("plain") is True)

    def frame(self, path: Path, number: int, *, shown: bool = False) -> npt.NDArray[Any] | Refusal:
        """Decode one frame of a stored object.

        Parameters
        ----------
        path : Path
            The object.
        number : int
            Which frame, from 0.
        shown : bool
            As the object wants it.

        Returns
        -------
        ndarray or Refusal
            As :func:`~meta_dx.dicom.display.shown_pixels` or :func:`~meta_dx.dicom.display.compact` returns it.
        """
        return self.ask([{"do": "frame", "path": str(path), "number": number, "shown": shown}], _pixels)[0]

    def window(self, path: Path, number: int) -> Window | None:
        """Return what a frame of a stored object is opened with, where it says so."""
        found = self.ask([{"do": "window", "path": str(path), "number": number}], _window)[0]
        return None if isinstance(found, Refusal) else found

    def close(self) -> None:
        """End the processes."""
        for child in (self._child, self._spare):
            if child is not None:
                child.end()
        self._child = self._spare = None

    def _ask_until_lost(
        self,
        requests: Sequence[Words],
        believed: Callable[[Words, bytes], _Answer],
        answers: list[_Answer | Refusal],
    ) -> None:
        child, asked = self._ready(), 0
        for number, request in enumerate(requests):
            ahead = 0 if "steps" in request else _AHEAD
            while asked <= min(number + ahead, len(requests) - 1):
                child.ask(requests[asked])
                asked += 1
            old = child.answers > 0
            try:
                answers.append(_answer(child, request, believed, self._most))
            except LostError as lost:
                again = lost.loss.excuses(old)
                self._replace()
                answers.append(self._ask_alone(request, believed) if again else lost.loss.refusal)
                return

    def _ask_alone(self, request: Words, believed: Callable[[Words, bytes], _Answer]) -> _Answer | Refusal:
        child = self._ready()
        child.ask(request)
        try:
            return _answer(child, request, believed, self._most)
        except LostError as lost:
            self._replace()
            return lost.loss.refusal

    def _ready(self) -> Child:
        if self._child is None or not self._child.alive:
            if self._child is not None:
                self._child.end()
            self._child = started(self._key, self._limits, self._spare, self._command)
            self._spare = None
        self._child.wait_until_ready()
        return self._child

    def _replace(self) -> None:
        """Give the reader up; the next one is at hand, and one after it is started meanwhile."""
        if self._child is not None:
            self._child.end()
        self._child = started(self._key, self._limits, self._spare, self._command)
        self._spare = Child(self._key, self._limits, self._command)


_resting: list[tuple[tuple[bytes, ReadLimits, tuple[str, ...]], Reader]] = []
_lock = threading.Lock()
os.register_at_fork(after_in_child=_resting.clear)  # they are the parent's


@contextmanager
def borrowed_reader(key: bytes, limits: ReadLimits, command: tuple[str, ...] = ()) -> Iterator[Reader]:
    """Lend a reader of this process; it rests afterwards, until :func:`end_readers` or a minute passes."""
    kind = (key, limits, command)
    with _lock:
        place = next((n for n, (other, _) in enumerate(_resting) if other == kind), None)
        reader = Reader(*kind) if place is None else _resting.pop(place)[1]
    try:
        yield reader
    except BaseException:
        reader.close()
        raise
    with _lock:
        _resting.append((kind, reader))


def end_readers(command: tuple[str, ...] | None = None) -> None:
    """End all readers of this process that rest, or only those that a command has started."""
    with _lock:
        ended = [one for one in _resting if command in (None, one[0][2])]
        _resting[:] = [one for one in _resting if one not in ended]
    for _, reader in ended:
        reader.close()


def _answer(
    child: Child, request: Words, believed: Callable[[Words, bytes], _Answer], most: int
) -> _Answer | Refusal:
    """Return the answer to a request; a loss is raised, and so is one that another process may not have."""
    words, content = child.answer(most)
    for _ in range(request.get("steps", 0)):
        if "working" not in words:
            break
        words, content = child.answer(most)
    try:
        if "refused" not in words:
            return believed(words, content)
        refusal = _refusal(words)
    except ValueError as fault:
        raise LostError(_nonsense()) from fault
    if refusal.code is RejectionCode.MEMORY_LIMIT:
        raise LostError(Loss(refusal))
    return refusal


def _request(file: FoundFile) -> Words:
    return {"do": "read", "path": file.place, "member": file.member, "size": file.size}


def _nonsense() -> Loss:
    return Loss(Refusal(RejectionCode.WORKER_CRASHED, "it answered what is no answer"))


def _refusal(words: Words) -> Refusal:
    detail = words.get("detail")
    if not isinstance(detail, str) or not _DETAIL.fullmatch(detail):
        raise ValueError("a reason is in our words")
    return Refusal(RejectionCode(words["refused"]), detail)


def _accepted(words: Words, content: bytes) -> AcceptedInstance:
    row, identities = words.get("row"), words.get("identities")
    if not isinstance(row, dict) or not isinstance(identities, dict):
        raise ValueError("an accepted file has a row and identities")
    for name, form in _FORMS.items():
        value = row.get(name)
        absent = name == "accession" and value is None
        if not absent and not (isinstance(value, str) and form.fullmatch(value)):
            raise ValueError("a surrogate has another form")
    for kind, pairs in identities.items():
        if kind not in _IDENTITIES or not isinstance(pairs, dict) or len(pairs) > 1:
            raise ValueError("there is no such identity")
        for name, value in pairs.items():
            short = isinstance(value, str) and len(value) <= _LONGEST[kind]
            if not (short and _IDENTITIES[kind].fullmatch(name)):
                raise ValueError("an identity has another form")
    if any(
        len(value) > longest for kind, longest in _ROW for value in row.values() if isinstance(value, kind)
    ):
        raise ValueError("a row is short")
    if hashlib.sha256(content).hexdigest() != row["object"]:
        raise ValueError("the object is another one")
    return AcceptedInstance(row, content, identities)


def _pixels(words: Words, content: bytes) -> npt.NDArray[Any]:
    shape, name = words.get("shape"), words.get("dtype")
    if name not in ("uint8", "int16", "uint16", "float32") or not isinstance(shape, list):
        raise ValueError("a frame has a type and a shape")
    sides = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
    if not sides or not all(type(side) is int and 0 < side < 1 << 16 for side in shape):
        raise ValueError("a frame has rows and columns")
    dtype = np.dtype(name).newbyteorder("<")
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError("a frame has as many pixels as it says")
    return np.frombuffer(content, dtype).reshape(shape)


def _window(words: Words, _: bytes) -> Window | None:
    value = words.get("window")
    if value is None:
        return None
    if not isinstance(value, list) or [type(one) for one in value] != [float, float, bool]:
        raise ValueError("a window has a centre and a width, and is curved or not")
    found = Window(*value)
    if not math.isfinite(found.center + found.width):
        raise ValueError("a window is finite")
    return found


def _members(value: Any, most: int) -> list[tuple[int, str, int, RejectionCode | None]]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("there are more members than allowed")
    members = []
    for number, name, size, refused in value:
        kinds = (type(number), type(name), type(size)) == (int, str, int)
        if not kinds or number < 0 or size < 0 or len(name) > _NAME:
            raise ValueError("a member has a number, a name and a size")
        members.append((number, name, size, None if refused is None else RejectionCode(refused)))
    return members


def _found(
    container: FoundFile, members: Sequence[tuple[int, str, int, RejectionCode | None]]
) -> list[FoundFile]:
    """Return the files of a container, each under a name of its own."""
    archive, taken, copies, found = is_archive_name(container.path.name), set[str](), Counter[str](), []
    for number, name, size, refused in members:
        unique = name
        while unique in taken:  # an archive may hold many files of one name
            copies[name] += 1
            unique = f"{name} ({copies[name] + 1})"
        taken.add(unique)
        found.append(
            member_of(container, number, unique, size, refused)
            if archive
            else referenced_file(container, name)
        )
    return found
