"""Confines a process that runs untrusted SQL, by means of Linux. `Confined` lists the layers that took effect.

Each layer alone keeps files and network out of reach. The kernel and the user id decide which layers are available:

- seccomp: no opening of files, no sockets, no programs, no other process's memory. Needs no rights.
- landlock: no path of any file system, no TCP, no signals to other processes. Needs no rights; Linux 5.13.
- chroot into a directory that is already removed, and the user `nobody`: only if the server runs as root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import tempfile
from pathlib import Path

import msgspec

__all__ = ["Confined", "bound_files", "bound_memory", "bound_time", "confine", "die_with_parent"]

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_FILTER = 2
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_FILE_RIGHTS = (13, 14, 15, 15, 16)  # kinds of access in version 1, 2 … of landlock
_ABI_NET, _ABI_SCOPE = 4, 6
_RESERVED = 1 << 30  # reserved address space that is never filled: stacks of threads, arenas of malloc
_NOBODY = 65534
_libc = ctypes.CDLL(None, use_errno=True)

# Numbers of system calls: x86-64, arm64. None where there is no such call.
_DENIED = (
    (2, None),  # open
    (85, None),  # creat
    (257, 56),  # openat
    (437, 437),  # openat2
    (41, 198),  # socket
    (42, 203),  # connect
    (49, 200),  # bind
    (59, 221),  # execve
    (322, 281),  # execveat
    (62, 129),  # kill
    (101, 117),  # ptrace
    (310, 270),  # process_vm_readv
    (311, 271),  # process_vm_writev
    (425, 425),  # io_uring_setup
    (321, 280),  # bpf
    (298, 241),  # perf_event_open
    (250, 219),  # keyctl
    (165, 40),  # mount
    (272, 97),  # unshare
    (308, 268),  # setns
    (304, 265),  # open_by_handle_at
    (438, 438),  # pidfd_getfd
    (86, None),  # link
    (265, 37),  # linkat
    (87, None),  # unlink
    (263, 35),  # unlinkat
    (82, None),  # rename
    (264, 38),  # renameat
    (316, 276),  # renameat2
    (83, None),  # mkdir
    (258, 34),  # mkdirat
)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class Confined(msgspec.Struct, frozen=True):
    """The layers that took effect, and the size of the process when it was confined.

    Attributes:
        layers: names of the layers in effect.
        address_space: bytes.
        data: private and writable bytes of the address space.
    """

    layers: tuple[str, ...]
    address_space: int
    data: int


def confine() -> Confined:
    """Permanently drop each right that a query does not need. Afterwards no module can be imported."""
    sizes = _sizes()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    done = [*_leave_files(), *(name for name, layer in (("landlock", _landlock), ("seccomp", _seccomp)) if layer())]
    _prctl(_PR_SET_DUMPABLE, 0)
    return Confined(tuple(done), sizes.get("VmSize", 0), sizes.get("VmData", 0))


def die_with_parent(parent: int) -> bool:
    """Let the kernel kill this process when its parent ends. Returns False if the parent has ended already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def bound_time(seconds: float, threads: int) -> None:
    """Let the kernel end this process one second after `seconds`. The server kills the process earlier if it can."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
    _limit(resource.RLIMIT_CPU, int(seconds + 2) * (threads + 1))


def bound_memory(confined: Confined, more: int) -> None:
    """Limit memory to `more` bytes above the size in `confined`. Also disable core dumps and writing to files."""
    _limit(resource.RLIMIT_DATA, confined.data + more)
    _limit(resource.RLIMIT_AS, confined.address_space + more + _RESERVED)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)


def bound_files(count: int) -> None:
    """Limit the number of open files to `count`."""
    _limit(resource.RLIMIT_NOFILE, count)


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _sizes() -> dict[str, int]:
    try:
        lines = Path("/proc/self/status").read_bytes().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.startswith((b"VmSize:", b"VmData:")))
    return {name.decode().rstrip(":"): int(kib) * 1024 for name, kib, _ in fields}


def _prctl(option: int, value: int, pointer: int = 0) -> bool:
    arguments = (ctypes.c_ulong(value), ctypes.c_ulong(pointer), ctypes.c_ulong(0), ctypes.c_ulong(0))
    return bool(_libc.prctl(option, *arguments) == 0)


def _leave_files() -> list[str]:
    """Change to a removed directory, in which nothing can be created. As root, also chroot and become `nobody`."""
    empty = tempfile.mkdtemp(prefix="lakebed-")
    os.chdir(empty)
    Path(empty).rmdir()
    if os.geteuid() != 0:
        return []
    done = []
    for name, step in (("chroot", _change_root), ("nobody", _become_nobody)):
        with contextlib.suppress(OSError):  # root in a container may lack the capability
            step()
            done.append(name)
    return done


def _change_root() -> None:
    os.chroot(".")


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _landlock() -> bool:
    """Deny every kind of access that this kernel's landlock supports."""
    abi = _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    files = (1 << _FILE_RIGHTS[min(abi, len(_FILE_RIGHTS)) - 1]) - 1
    rules = struct.pack("<QQQ", files, 0b11 if abi >= _ABI_NET else 0, 0b11 if abi >= _ABI_SCOPE else 0)
    size = 24 if abi >= _ABI_SCOPE else 16 if abi >= _ABI_NET else 8
    ruleset = _libc.syscall(_LANDLOCK_CREATE, rules, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        return bool(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _seccomp() -> bool:
    """Make each system call in `_DENIED` fail with EPERM."""
    if platform.machine() not in _ARCHITECTURES:
        return False
    column, architecture = _ARCHITECTURES[platform.machine()]
    numbers = [call[column] for call in _DENIED]
    program = _program(architecture, [number for number in numbers if number is not None])
    body = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(body)))
    return _prctl(_PR_SET_SECCOMP, _FILTER, ctypes.addressof(header))


def _program(architecture: int, numbers: list[int]) -> bytes:
    """A BPF filter that kills on another architecture, refuses the calls in `numbers`, and allows all others."""
    load, jump_equal, jump_above, give = 0x20, 0x15, 0x35, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
    steps = [(load, 0, 0, 4), (jump_equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    left = len(numbers)
    steps.append((jump_above, left + 1, 0, 0x40000000))  # x32 calls of x86-64 have other numbers for the same calls
    steps += [(jump_equal, left - index, 0, number) for index, number in enumerate(numbers)]
    steps += [(give, 0, 0, allow), (give, 0, 0, refuse)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
