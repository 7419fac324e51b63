"""What a running process may do, changed from outside: files that cannot grow, no descriptors to be had."""

import contextlib
import resource
import subprocess
from pathlib import Path

import psutil

from tests.fixtures import processes


def limit_files(pid: int, size_bytes: int | None) -> None:
    """No file of the process or its descendants may be written beyond `size_bytes`; None lifts that.

    The error is EFBIG where a full disk says ENOSPC: to who writes it is as final.
    """
    size = "unlimited" if size_bytes is None else str(size_bytes)
    for process in processes.family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            user, group = process.uids().real, process.gids().real
            # As whoever runs it: root may not always do that to others' processes. It may have ended meanwhile.
            subprocess.run(
                ["prlimit", f"--pid={process.pid}", f"--fsize={size}:"],
                check=False,
                stderr=subprocess.DEVNULL,
                user=user,
                group=group,
                extra_groups=[],
            )


def limit_descriptors(pid: int) -> dict[int, int]:
    """Let no process of the family open anything more; what is open stays. The limits until now, by process."""
    before: dict[int, int] = {}
    for process in processes.family(pid):
        before[process.pid], hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        taken = {int(path.name) for path in Path(f"/proc/{process.pid}/fd").iterdir()}
        lowest_free = next(number for number in range(len(taken) + 1) if number not in taken)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (lowest_free, hard))
    return before


def restore_descriptors(before: dict[int, int]) -> None:
    """Undo `limit_descriptors`."""
    for pid, soft in before.items():
        if psutil.pid_exists(pid):
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def raised_descriptors() -> int:
    """Let this process have as many as the system allows it; how many those are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
