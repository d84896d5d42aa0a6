"""What the kernel no longer lets a reading process do: change files, start processes, use a network, touch others.

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

_EPERM, _ENOSYS = 1, 38
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # answers of a filter
# BPF: load a word; jump where it is equal, at least, or has the bits; return
_LOAD, _EQUAL, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_AT, _SECOND_AT = 0, 4, 16, 24  # in struct seccomp_data
_X32 = 0x40000000  # numbers of the other calling convention of x86-64
_THREAD = 0x10000  # CLONE_THREAD
_HARMLESS = (0, 1, 2, 3, 4, 1030)  # fcntl: copies and flags of descriptors, no locks and leases

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column below, AUDIT_ARCH_*
_CLONE, _CLONE3, _PRLIMIT, _FCNTL = (56, 220), (435, 435), (302, 261), (72, 25)

#: System calls that fail in a reader: number on x86-64 and on ARM, None where there is none.
FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30),
    # what outlives the process, or holds others up
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "flock": (73, 32),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # doors into the kernel
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    # what Landlock lets be changed of files
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}

_CAPABILITIES = 0x20080522  # version of the structures of capset(2)
_READ_SEARCH = 1 << 2  # CAP_DAC_READ_SEARCH: the super-user may go on reading what is not his

_Steps = list[tuple[int, int, int, int]]


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
        held = _landlock(libc)
        _drop_capabilities(libc)
        return Confinement(held, _seccomp(libc))
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


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Keep only the right to read; nothing happens to a process that has none."""
    about = struct.pack("=Ii", _CAPABILITIES, 0)
    libc.capset(about, struct.pack("=6I", _READ_SEARCH, _READ_SEARCH, 0, 0, 0, 0))


def _seccomp(libc: ctypes.CDLL) -> bool:
    if platform.machine() not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    steps = _filter(*_ARCHITECTURES[platform.machine()])
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    return bool(libc.prctl(_PRCTL_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)


def _filter(column: int, architecture: int) -> _Steps:
    """Return the program that looks at each system call: type, steps where true, steps where false, value."""
    calls = [numbers[column] for numbers in FORBIDDEN.values()]
    present = [call for call in calls if call is not None]
    refuse, allow = (_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW)
    thread = [(_LOAD, 0, 0, _FIRST_AT), (_HAS, 1, 0, _THREAD), refuse, allow]
    own = [(_LOAD, 0, 0, _FIRST_AT), (_EQUAL, 1, 0, 0), refuse, allow]
    harmless = [(_EQUAL, len(_HARMLESS) - place, 0, what) for place, what in enumerate(_HARMLESS)]
    descriptor = [(_LOAD, 0, 0, _SECOND_AT), *harmless, refuse, allow]
    # The C library asks for clone3 first and, where it is not known, for clone, whose flags can be seen.
    unknown = [(_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *_where(_CLONE[column], thread),
        *_where(_CLONE3[column], unknown),
        *_where(_PRLIMIT[column], own),
        *_where(_FCNTL[column], descriptor),
        (_AT_LEAST, len(present) + 1, 0, _X32),
        *((_EQUAL, len(present) - place, 0, call) for place, call in enumerate(present)),
        allow,
        refuse,
    ]


def _where(call: int, steps: _Steps) -> _Steps:
    """Return steps that are taken, and end, where the call is this one."""
    return [(_EQUAL, 0, len(steps), call), *steps]
