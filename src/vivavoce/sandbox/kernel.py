"""The Linux kernel's means of confining a program: a filter of system calls, namespaces, a root of its own.

Called by :mod:`vivavoce.sandbox.jail` in a process that will run nothing else; everything here is for good. The filter
is a list of allowed calls (seccomp, a classic BPF program). Any other call fails with EPERM, so that a system call
which a later kernel adds is refused as well. A process cannot take its filter off.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 38, 22, 24
_NEW_NAMESPACES = 0x00020000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
"""Mounts, users, processes, network, System V IPC, host name."""
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


def die_with_parent() -> None:
    """Be killed when the process that forked this one ends, however it ends."""
    parent = os.getppid()
    _call(_libc.prctl, _PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def hide_memory() -> None:
    """No process of the same user may trace this one or read its memory."""
    _call(_libc.prctl, _PR_SET_DUMPABLE, 0, 0, 0, 0)


def enter_namespaces() -> None:
    """Leave the machine's mounts, processes, network, users: the next fork is process 1 of a space of its own.

    Raises OSError if the kernel does not allow that to this user.
    """
    user, group = os.getuid(), os.getgid()
    _call(_libc.unshare, _NEW_NAMESPACES)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def new_root(shown: list[Path], box: str) -> None:
    """A root that holds the folders ``shown``, read-only, and an empty ``box``; nothing else of the machine, no /proc
    and no /dev. Raises OSError if the kernel does not allow that."""
    root = Path("/tmp")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    handles = [os.open(folder, os.O_PATH) for folder in shown]  # the new root may hide where they lie
    _mount("tmpfs", str(root), "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    for folder, handle in zip(shown, handles, strict=True):
        inside = root / folder.relative_to("/")
        inside.mkdir(parents=True, exist_ok=True)
        _mount(f"/proc/self/fd/{handle}", str(inside), None, _MS_BIND | _MS_REC)
        _read_only(str(inside))
        os.close(handle)
    (root / box.lstrip("/")).mkdir()
    os.chdir(root)
    _call(_libc.syscall, _numbers("pivot_root"), b".", b".")  # the old root lies on top of the new one, to be taken off
    _call(_libc.umount2, b".", _MNT_DETACH)
    os.chdir("/")
    _read_only("/", recursive=False)


def fresh_box(box: str, megabytes: int) -> None:
    """An empty folder at ``box`` in memory, in the place of what stood there."""
    os.chdir("/")
    with contextlib.suppress(OSError):  # nothing is mounted there the first time
        _call(_libc.umount2, box.encode(), _MNT_DETACH)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _mount("tmpfs", box, "tmpfs", flags, f"size={megabytes}m,nr_inodes=4096,mode=700")
    os.chdir(box)


def drop_capabilities() -> None:
    """Be root of nothing: no mount, no device, no other process, in whatever namespace."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # there are no more of them, or this process has none to drop
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    _call(_libc.syscall, _numbers("capset"), header, ctypes.create_string_buffer(bytes(24)))


def filter_calls(files: bool) -> None:
    """Allow this process, from now on, what computing needs: memory, clocks, its own signals, what is already open.

    No new process or thread, no program started, no socket, no signal to another process, no look into one. With
    ``files`` files may be opened, written and removed, if the mounts allow it; without, none can be opened at all.
    """
    _call(_libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    code = b"".join(_program(files))
    instructions = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions)))
    _call(_libc.prctl, _PR_SET_SECCOMP, 2, program, 0, 0)


class _Machine(NamedTuple):
    audit: int
    column: int


_MACHINES = {"x86_64": _Machine(0xC000003E, 0), "aarch64": _Machine(0xC00000B7, 1)}

# name: its number on x86_64, on aarch64; None where the machine does not have it
_COMPUTING: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "poll": (7, None), "lseek": (8, 62),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67), "readv": (19, 65),
    "writev": (20, 66), "pipe": (22, None), "select": (23, None), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "dup": (32, 23), "dup2": (33, None), "pause": (34, None), "nanosleep": (35, 101),
    "getitimer": (36, 102), "alarm": (37, None), "setitimer": (38, 103), "getpid": (39, 172), "exit": (60, 93),
    "uname": (63, 160), "getcwd": (79, 17), "gettimeofday": (96, 169), "getrlimit": (97, None),
    "getrusage": (98, 165), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "sigaltstack": (131, 132), "gettid": (186, 178), "time": (201, None),
    "futex": (202, 98), "sched_getaffinity": (204, 123), "restart_syscall": (219, 128), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94), "pselect6": (270, 72),
    "ppoll": (271, 73), "dup3": (292, 24), "pipe2": (293, 59), "getrandom": (318, 278), "membarrier": (324, 283),
}  # fmt: skip
_FILES: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "stat": (4, None), "lstat": (6, None), "access": (21, None), "fsync": (74, 82),
    "ftruncate": (77, 46), "getdents64": (217, 61), "chdir": (80, 49), "rename": (82, None), "mkdir": (83, None),
    "rmdir": (84, None), "unlink": (87, None), "readlink": (89, None), "fadvise64": (221, 223), "openat": (257, 56),
    "mkdirat": (258, 34), "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, 38),
    "readlinkat": (267, 78), "faccessat": (269, 48), "renameat2": (316, 276), "faccessat2": (439, 439),
    "pwrite64": (18, 68), "statfs": (137, 43),
}  # fmt: skip
_GUARDED: dict[str, tuple[int | None, int | None]] = {
    "ioctl": (16, 29), "fcntl": (72, 25), "tgkill": (234, 131), "prlimit64": (302, 261),
}  # fmt: skip
_OURS: dict[str, tuple[int | None, int | None]] = {
    "pivot_root": (155, 41),
    "capset": (126, 91),
    "mount_setattr": (442, 442),
}
_TCGETS, _F_DUPFD, _F_GETFD, _F_GETFL, _F_DUPFD_CLOEXEC, _F_SETFD = 0x5401, 0, 1, 3, 1030, 2
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_LOAD, _IS, _RETURN = 0x20, 0x15, 0x06
_AT_NUMBER, _AT_MACHINE, _AT_ARGUMENTS = 0, 4, 16


def _machine() -> _Machine:
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.byteorder != "little" or sys.maxsize < 2**32:
        raise OSError(errno.ENOSYS, f"no filter is written for {sys.platform} on {platform.machine()}")
    return machine


def _numbers(name: str) -> int:
    number = {**_OURS, **_COMPUTING}[name][_machine().column]
    assert number is not None, name
    return number


def _program(files: bool) -> Iterator[bytes]:
    """The filter's instructions, 8 bytes each: code, jump if true, jump if false, operand."""
    machine = _machine()
    yield _step(_LOAD, 0, 0, _AT_MACHINE)
    yield _step(_IS, 1, 0, machine.audit)
    yield _step(_RETURN, 0, 0, _KILL)  # called as another machine's program would, whose numbers mean other calls
    yield _step(_LOAD, 0, 0, _AT_NUMBER)
    for numbers in {**_COMPUTING, **(_FILES if files else {})}.values():
        if (number := numbers[machine.column]) is not None:
            yield _step(_IS, 0, 1, number)
            yield _step(_RETURN, 0, 0, _ALLOW)
    duplicates = (_F_DUPFD, _F_GETFD, _F_GETFL, _F_DUPFD_CLOEXEC, _F_SETFD)
    guarded = {
        "ioctl": (1, (_TCGETS,)),
        "fcntl": (1, duplicates),
        "tgkill": (0, (os.getpid(),)),
        "prlimit64": (2, (0,)),
    }
    for name, (argument, allowed) in guarded.items():
        number = _GUARDED[name][machine.column]
        assert number is not None, name
        body = [_step(_LOAD, 0, 0, _AT_ARGUMENTS + 8 * argument)]
        for value in allowed:
            body += [_step(_IS, 0, 1, value), _step(_RETURN, 0, 0, _ALLOW)]
        if name == "prlimit64":  # a pointer: both halves of it must be null
            high = _step(_LOAD, 0, 0, _AT_ARGUMENTS + 8 * argument + 4)
            body = [high, _step(_IS, 0, 3, 0), *body]
        body.append(_step(_RETURN, 0, 0, _REFUSE))
        yield _step(_IS, 0, len(body), number)
        yield from body
    yield _step(_RETURN, 0, 0, _REFUSE)


def _step(code: int, if_true: int, if_false: int, operand: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, operand)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _call(_libc.mount, *encoded[:3], flags, encoded[3])


def _read_only(path: str, recursive: bool = True) -> None:
    """Forbid writing, devices and set-user-id programs below ``path``; in mounts below it too if ``recursive``."""
    attributes = ctypes.create_string_buffer(struct.pack("QQQQ", 1 | 2 | 4, 0, 0, 0), 32)
    flags = 0x8000 if recursive else 0
    _call(_libc.syscall, _numbers("mount_setattr"), -100, path.encode(), flags, attributes, 32)


def _call(function: Any, *arguments: object) -> None:
    if function(*[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function.__name__}: {os.strerror(code)}")


__all__ = [
    "die_with_parent",
    "drop_capabilities",
    "enter_namespaces",
    "filter_calls",
    "fresh_box",
    "hide_memory",
    "new_root",
]
