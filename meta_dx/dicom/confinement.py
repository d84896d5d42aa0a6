"""What the kernel no longer lets a reading process do: change files, start programs, use a network, look at others.

A decoder that a file has taken over can then still read what its user can read, but has no way to carry it off: all
that leaves is what the reader sends to its parent, which believes only what has the right form.

Two means of Linux, each used where it is there: Landlock (5.13) for files and TCP, seccomp for whole system calls.
References: ``landlock(7)``, ``seccomp(2)``, ``linux/landlock.h``, ``linux/filter.h``.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from dataclasses import dataclass

_PRCTL_SECCOMP, _PRCTL_NO_NEW_PRIVILEGES, _FILTER = 22, 38, 2
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # numbers of all architectures

# Bits of LANDLOCK_ACCESS_FS_*: all of them but reading a file (2) and a folder (3).
_CHANGES = {1: 0x1FFF & ~0b1100, 2: 1 << 13, 3: 1 << 14}  # by the version that brought them
_TCP = 0b11  # bind and connect, from version 4
_SCOPES = 0b11  # abstract sockets and signals to others, from version 6

_EPERM, _ALLOW, _ERRNO, _KILL = 1, 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: word at, jump if equal, if not less, return
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data
_X32 = 0x40000000  # numbers of the other calling convention of x86-64

# For each architecture a line of sockets, of programs, of other processes, of the kernel, of its keys, and of modes,
# owners, attributes and times of files, which Landlock leaves alone.
_FORBIDDEN: dict[str, tuple[int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E,
        (
            *(41, 42),  # socket, connect
            *(59, 322),  # execve, execveat
            *(101, 310, 311, 438),  # ptrace, process_vm_readv, process_vm_writev, pidfd_getfd
            *(321, 425, 298, 323),  # bpf, io_uring_setup, perf_event_open, userfaultfd
            *(165, 272, 308),  # mount, unshare, setns
            *(248, 249, 250),  # add_key, request_key, keyctl
            *(90, 91, 268, 452),  # chmod, fchmod, fchmodat, fchmodat2
            *(92, 93, 94, 260),  # chown, fchown, lchown, fchownat
            *(188, 189, 190),  # setxattr, lsetxattr, fsetxattr
            *(132, 235, 261, 280),  # utime, utimes, futimesat, utimensat
        ),
    ),
    "aarch64": (
        0xC00000B7,
        (
            *(198, 203),
            *(221, 281),
            *(117, 270, 271, 438),
            *(280, 425, 241, 282, 40, 97, 268),
            *(217, 218, 219),
            *(52, 53, 452, 54, 55, 5, 6, 7, 88),
        ),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


@dataclass(frozen=True)
class Confinement:
    """What holds this process.

    Parameters
    ----------
    landlock : int
        Version of Landlock, 0 where there is none.
    seccomp : bool
        Whether system calls are filtered.
    """

    landlock: int
    seccomp: bool


def confine() -> Confinement:
    """Give up, for good, what reading a file does not need; what the kernel does not know is left out.

    Returns
    -------
    Confinement
        What took hold. Files can still be opened for reading, and what is open stays so.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PRCTL_NO_NEW_PRIVILEGES, 1, 0, 0, 0)  # without it neither may be asked for
        return Confinement(_landlock(libc), _seccomp(libc))
    except AttributeError:  # not Linux
        return Confinement(0, seccomp=False)


def landlock_version() -> int:
    """Return the version of Landlock that the kernel offers, 0 for none."""
    try:
        return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))
    except AttributeError:
        return 0


def _landlock(libc: ctypes.CDLL) -> int:
    version = landlock_version()
    if not version:
        return 0
    changes = sum(bits for since, bits in _CHANGES.items() if since <= version)
    words = [changes]
    if version >= 4:
        words.append(_TCP)
    if version >= 6:
        words.append(_SCOPES)
    asked = struct.pack(f"={len(words)}Q", *words)
    # A rule set without rules forbids all that it handles.
    rules = libc.syscall(_CREATE_RULESET, asked, ctypes.c_size_t(len(asked)), 0)
    if rules < 0:
        return 0
    try:
        return version if libc.syscall(_RESTRICT_SELF, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _seccomp(libc: ctypes.CDLL) -> bool:
    if platform.machine() not in _FORBIDDEN or struct.calcsize("P") != 8:
        return False
    architecture, calls = _FORBIDDEN[platform.machine()]
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, len(calls) + 1, 0, _X32),
        *((_EQUAL, len(calls) - number, 0, call) for number, call in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    return bool(libc.prctl(_PRCTL_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)
