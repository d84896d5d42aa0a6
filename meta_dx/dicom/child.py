"""One reading process, as its parent sees it: started, asked, listened to within a time, and ended."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from meta_dx.dicom import messages
from meta_dx.dicom.reading import ReadLimits
from meta_dx.dicom.rejections import Refusal, RejectionCode
from meta_dx.errors import MetaDxError

#: What starts a reader of files.
COMMAND: tuple[str, ...] = (sys.executable, "-m", "meta_dx.dicom.reader_process")

_IDLE = 75  # status of a reader that ended because nobody asked it anything
_START_SECONDS = 120.0
_TRIES = 3
_PIPE_BYTES, _SET_PIPE_SIZE = 1 << 20, 1031
_FULL = 0.8  # of the memory limit, when a reader died
_PASSED_ON = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV"),
    # They choose the code that multiplies, and with it the last bit of a sum: a reader is to count as its parent does.
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
)


@dataclass(frozen=True)
class Loss:
    """How a reader was lost.

    Parameters
    ----------
    refusal : Refusal
        What that means for the file that it was reading.
    again : bool
        The file need not be to blame: the system killed the reader.
    """

    refusal: Refusal
    again: bool = False

    def excuses(self, old: bool) -> bool:
        """Tell whether the file is to be tried once more; ``old``: the reader had read others before."""
        return self.refusal.code is not RejectionCode.TIME_LIMIT and (self.again or old)


class LostError(Exception):
    """The reader has been lost; :attr:`loss` says how."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss.refusal.code)
        self.loss = loss


class Child:
    """A reading process.

    Parameters
    ----------
    key : bytes
        The key of the home.
    limits : ReadLimits
        What one file may take.
    command : tuple of str
        What starts it; default :data:`COMMAND`.

    Attributes
    ----------
    answers : int
        How many it has given.
    """

    def __init__(self, key: bytes, limits: ReadLimits, command: tuple[str, ...] = ()) -> None:
        self._limits = limits
        self._ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, a fixed command
            command or COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=_environment()
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("a process was started without pipes")
        self._to, self._from = self._process.stdin, self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._from.fileno(), select.POLLIN | select.POLLHUP)
        self._until = 0.0
        self._started = False
        self.answers = 0
        with suppress(OSError):  # a larger pipe saves switches between the processes
            fcntl.fcntl(self._from.fileno(), _SET_PIPE_SIZE, _PIPE_BYTES)
        self._write({"limits": asdict(limits)}, key)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def wait_until_ready(self) -> bool:
        """Wait until the process has started; False when it died while starting."""
        if not self._started:
            self._until = time.monotonic() + _START_SECONDS
            try:
                self._started = "ready" in messages.received(self._receive, 0)[0]
            except (messages.BrokenMessageError, TimeoutError):
                return False
        return self._started

    def ask(self, words: dict[str, Any]) -> None:
        """Send one request; that nobody listens any more shows when the answer does not come."""
        self._write(words)

    def answer(self, most: int) -> tuple[dict[str, Any], bytes]:
        """Return the next answer; its time begins now.

        Parameters
        ----------
        most : int
            Bytes that its content may have.

        Raises
        ------
        LostError
            It took too long, or the process died, or it answers what is no message. The process has ended.
        """
        self._until = time.monotonic() + self._limits.seconds
        try:
            found = messages.received(self._receive, most)
        except TimeoutError as fault:
            self.end()
            raise LostError(Loss(Refusal(RejectionCode.TIME_LIMIT))) from fault
        except messages.BrokenMessageError as fault:
            raise LostError(self._loss()) from fault
        self.answers += 1
        return found

    def end(self) -> None:
        """End the process; it may be in any state."""
        with suppress(OSError):
            self._to.close()
        self._from.close()
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()

    def _loss(self) -> Loss:
        """Wait for the end of a process that has closed its pipe, or make it end, and say how it ended."""
        gone = self._gone(1.0)
        if not gone:  # it lives and writes nonsense
            self.end()
            return Loss(Refusal(RejectionCode.WORKER_CRASHED, "it answered what is no answer"))
        status, most = gone
        self._process.returncode = status
        self.end()
        # Before it became a reader it was a copy of this process, whose memory the system counts as its own.
        if most * 1024 > _FULL * self._limits.memory_bytes and most > self._ours:
            return Loss(Refusal(RejectionCode.MEMORY_LIMIT), again=status == -signal.SIGKILL)
        how = f"status {status}" if status >= 0 else signal.Signals(-status).name
        again = status in (-signal.SIGKILL, _IDLE)
        return Loss(Refusal(RejectionCode.WORKER_CRASHED, f"ended with {how}"), again)

    def _gone(self, seconds: float) -> tuple[int, int] | None:
        """Return status and largest memory (KiB) of the process once it has ended."""
        until = time.monotonic() + seconds
        if self._process.returncode is not None:
            return self._process.returncode, 0
        while True:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status), usage.ru_maxrss
            if time.monotonic() > until:
                return None
            time.sleep(0.001)

    def _write(self, words: dict[str, Any], content: bytes = b"") -> None:
        with suppress(OSError):
            for part in messages.packed(words, content):
                self._to.write(part)

    def _receive(self, size: int) -> bytes:
        left = self._until - time.monotonic()
        if left <= 0 or not self._poll.poll(left * 1000):
            raise TimeoutError
        return os.read(self._from.fileno(), size)


def started(
    key: bytes, limits: ReadLimits, spare: Child | None = None, command: tuple[str, ...] = ()
) -> Child:
    """Return a reader that is ready.

    Parameters
    ----------
    key : bytes
        The key of the home.
    limits : ReadLimits
        What one file may take.
    spare : Child, optional
        One that was started before and may be ready.
    command : tuple of str
        As for :class:`Child`.

    Raises
    ------
    MetaDxError
        ``reader_start``: something of the installation or the limits keeps readers from starting.
    """
    for attempt in range(_TRIES):
        child = spare if spare is not None and attempt == 0 else Child(key, limits, command)
        if child.alive and child.wait_until_ready():
            return child
        child.end()
    raise MetaDxError(
        "reader_start",
        "The process that reads files does not start (what it said stands above): check the installation with "
        "'meta-dx doctor', and that [ingest] max_memory_bytes is not too small.",
    )


def _environment() -> dict[str, str]:
    """Return what a reader may know: where its modules lie, and nothing that is secret."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Threads of linear algebra would reserve address space, of which a reader has little.
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    # A picture needs a few arrays of megabytes. The C library would get each from the system and give it back at
    # once, and the system would fill it with zeros: half of the time of an uncompressed CT slice.
    memory = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
    modules = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    return {
        **kept,
        **threads,
        **memory,
        "PYTHONPATH": modules,
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
