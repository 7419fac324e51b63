"""Becomes another program that cannot outlive its parent, as an unprivileged user where asked to.

Run by path, as `python -I -S launcher.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM ARGUMENT...`; a UID of -1 keeps
the user. Knows the standard library alone, so that it starts in a few milliseconds.

PostgreSQL refuses to run as root. A fresh machine or container, though, often has nothing but root, and keeps the
checkout below a home that no other user may enter. Opening that home to everybody is not ours to do: the new user
keeps one capability instead, to pass permissions of files (CAP_DAC_OVERRIDE), which root held anyway.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1


def give_up_root(uid: int, gid: int) -> None:
    """Turn into `uid` and `gid`, keeping the right to pass file permissions where the system lets us.

    Raises OSError where the caller may not change its user.
    """
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if libc is not None:
        # Where this is refused (a container without the capability), the program says itself what it cannot read.
        kept = 1 << CAP_DAC_OVERRIDE
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        effective_permitted_inheritable = (ctypes.c_uint32 * 6)(kept, kept, kept, 0, 0, 0)
        libc.capset(header, effective_permitted_inheritable)
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def die_with(parent_pid: int, death_signal: int) -> None:
    """Have the kernel send `death_signal` to this process when its parent dies (Linux; nothing elsewhere)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before we asked
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Do as the module says; never returns."""
    parent_pid, death_signal, uid, gid = (int(number) for number in arguments[:4])
    program = arguments[4:]
    if uid >= 0:
        give_up_root(uid, gid)
    die_with(parent_pid, death_signal)  # after the change of user, which would undo it
    os.execv(program[0], program)  # noqa: S606  # no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
