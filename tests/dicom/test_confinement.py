"""A process that has confined itself reads files, and does nothing else to the machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from meta_dx.dicom.child import Child
from meta_dx.dicom.confinement import FORBIDDEN, landlock_version
from meta_dx.dicom.reading import ReadLimits

_PROGRAM = """
import ctypes, errno, fcntl, json, os, resource, signal, socket, subprocess, sys, threading
from pathlib import Path
folder, port, free = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "free"
from meta_dx.dicom.confinement import confine
held = None if free else confine()
def tcp():
    with socket.create_connection(("127.0.0.1", port)): pass
def thread():
    one = threading.Thread(target=len, args=((),))
    one.start()
    one.join()
def fork():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
def shared_memory():
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.shmget(0, 100, 0o600)
    if made < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    libc.shmctl(made, 0, None)
seen = open(folder / "there")
def reads():
    assert (folder / "there").read_text() == "kept"
    assert sorted(os.listdir(folder)) == ["away", "empty", "there"]
    import tarfile, lzma
acts = {
    "reads": reads,
    "ends itself": lambda: os.kill(os.getpid(), 0),
    "changes": lambda: (folder / "there").write_text("kept"),
    "shortens": lambda: os.truncate(folder / "there", 4),
    "modes": lambda: os.chmod(folder / "there", 0o644),
    "times": lambda: os.utime(folder / "there"),
    "attributes": lambda: os.setxattr(folder / "there", "user.a", b"b"),
    "writes": lambda: (folder / "new").write_text(""),
    "removes": lambda: (folder / "away").unlink(),
    "folder": lambda: (folder / "folder").mkdir(),
    "no folder": lambda: (folder / "empty").rmdir(),
    "renames": lambda: (folder / "there").rename(folder / "there"),
    "links": lambda: (folder / "link").symlink_to("there"),
    "tcp": tcp,
    "udp": lambda: socket.socket(type=socket.SOCK_DGRAM).close(),
    "unix": lambda: socket.socket(socket.AF_UNIX).close(),
    "threads": thread,
    "forks": fork,
    "limits": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), os.getpriority(os.PRIO_PROCESS, os.getppid())),
    "cores": lambda: os.sched_setaffinity(os.getppid(), os.sched_getaffinity(os.getppid())),
    "locks": lambda: fcntl.flock(seen, fcntl.LOCK_EX),
    "locks a part": lambda: fcntl.lockf(seen, fcntl.LOCK_SH),
    "shared memory": shared_memory,
    "program": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "signal": lambda: os.kill(os.getppid(), 0),
}
done = []
for name, act in acts.items():
    try:
        act()
    except PermissionError:
        continue
    except OSError as fault:  # a file system without attributes: asked, not forbidden
        assert fault.errno == errno.ENOTSUP, fault
    done.append(name)
print(json.dumps({"done": done, "held": held and vars(held)}))
"""


def _acts(folder: Path, port: int, how: str) -> dict:
    (folder / "there").write_text("kept")
    (folder / "away").touch()
    (folder / "empty").mkdir()
    command = [sys.executable, "-c", _PROGRAM, str(folder), str(port), how]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_confined_process_reads_and_does_nothing_else(tmp_path, port):
    found = _acts(tmp_path, port, "confined")
    held = found["held"]
    if not held["landlock"] or not held["seccomp"]:
        pytest.skip(f"this kernel confines only in part: {held}")
    assert held["landlock"] == landlock_version()
    allowed = {"reads", "ends itself", "threads"}
    allowed |= {"signal"} if held["landlock"] < 6 else set()
    assert set(found["done"]) == allowed | ({"shortens"} if held["landlock"] < 3 else set())
    assert sorted(os.listdir(tmp_path)) == ["away", "empty", "there"]


def test_the_same_acts_succeed_without(tmp_path, port):
    assert len(_acts(tmp_path, port, "free")["done"]) == 26


def test_every_forbidden_call_has_a_number_of_its_own():
    for column in (0, 1):
        numbers = [found[column] for found in FORBIDDEN.values() if found[column] is not None]
        assert len(set(numbers)) == len(numbers)


def test_a_reader_of_files_is_confined():
    reader = Child(b"k" * 32, ReadLimits())
    try:
        assert reader.wait_until_ready()
        state = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{reader._process.pid}/status").read_text().splitlines()
        )
    finally:
        reader.end()
    assert state["NoNewPrivs"].strip() == "1"
    assert int(state["CapEff"], 16) & ~0b100 == 0  # at most: reading what is somebody else's
    if state.get("Seccomp") is None:
        pytest.skip("this kernel filters no system calls")
    assert state["Seccomp"].strip() == "2"
