"""A timer of microseconds for an event loop, whose own timers count milliseconds. Linux: `timerfd_create(2)`."""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_TIMER_ABSTIME = 1
_SHORTEST_NS = 1  # a time of 0 would disarm it


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Calls `ring` in the running loop when `time.monotonic()` has come to what was set. Close it at the end."""

    def __init__(self, ring: Callable[[], object]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._rung)

    def _rung(self) -> None:
        os.read(self._descriptor, 8)
        self._ring()

    def set(self, at: float) -> None:
        """Ring once at `at`, in seconds of the monotonic clock; at once where it has passed."""
        seconds, nanoseconds = divmod(max(_SHORTEST_NS, int(at * 1e9)), 10**9)
        setting = _Setting(_Timespec(0, 0), _Timespec(seconds, nanoseconds))
        if self._libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(setting), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Never ring again."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
