"""A reader that does what hostile files make parsers and decoders do; the patient's number says what.

Started in the place of ``meta_dx.dicom.reader_process`` (see ``hostile`` in ``tests/conftest.py``).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import time
from pathlib import Path

from meta_dx.dicom import reader_process, reading

_real, _read_bytes = reading.require_picture, Path.read_bytes


def _read(path: Path) -> bytes:
    if Path(f"{path} is closed").is_dir():  # permissions do not stop the super-user, whom many a test runs as
        raise PermissionError(errno.EACCES, "denied")
    return _read_bytes(path)


def _swell_in_c() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    while block := libc.malloc(1 << 20):
        libc.memset(block, 1, 1 << 20)
    os.abort()


def _kill(_=None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_first(_) -> None:
    with open(sys.argv[1]) as log:
        if int(log.readline()) == os.getpid():
            _kill()


def _hang(_) -> None:
    while True:
        time.sleep(0.01)


def _swell(_) -> None:
    blocks = []
    while True:
        blocks.append(bytearray(1 << 24))


def _raise(dataset) -> None:
    raise RuntimeError(f"of {dataset.PatientName}")


def _print(dataset) -> None:
    for stream in (1, 2):
        os.write(stream, b"\0\1\2 garbage " + str(dataset.PatientName).encode() * 10_000)


def _write(dataset) -> None:
    with open(str(dataset.AccessionNumber), "wb") as stream:
        stream.write(b"x" * 100)
        stream.flush()


def _poison(_) -> None:
    reading.require_picture = lambda *_, **__: os.abort()  # this file comes through, the next one crashes


ACTS = {
    "ABORT": lambda _: os.abort(),
    "EXIT": lambda _: os._exit(0),
    "IDLE": lambda _: os._exit(reader_process.IDLE),
    "KILL": _kill,
    "KILL_FIRST": _kill_first,
    "HANG": _hang,
    "SWELL": _swell,
    "SWELL_IN_C": lambda _: _swell_in_c(),
    "RAISE": _raise,
    "PRINT": _print,
    "WRITE": _write,
    "POISON": _poison,
}


def _require_picture(dataset, *arguments, **options):
    act = str(dataset.PatientID).split(" ")[0]
    if act in ACTS:
        ACTS[act](dataset)
    return _real(dataset, *arguments, **options)


reading.require_picture = _require_picture
Path.read_bytes = _read

if __name__ == "__main__":
    if len(sys.argv) > 1:
        with open(sys.argv[1], "a") as log:
            log.write(f"{os.getpid()}\n")
    reader_process.main()
