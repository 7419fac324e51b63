"""Where log lines go: taken at once, written by a thread of its own. Whoever logs never waits for whoever reads.

A pipe that nobody reads fills up after 64 KiB, and a write to it stops its process; so does a disk that hangs. Here the
lines wait, up to a bound; beyond that they are dropped and counted, and the gateway goes on serving.
"""

import os
import select
import stat
import threading
import time
from typing import Final, TextIO

import structlog

log = structlog.get_logger(__name__)

MOST_WAITING: Final = 4 * 1024 * 1024  # characters: some ten thousand lines
GATHER_SECONDS: Final = 0.005  # between two writes: under load many lines are one write
PIPE_BYTES: Final = select.PIPE_BUF  # what workers that share a pipe can write without cutting each other's lines
FILE_BYTES: Final = 65_536  # a file takes any piece as a whole
CLOSE_SECONDS: Final = 2.0  # for the last lines


class Lines:
    """A file of lines to write to, to be closed at the end.

    `dropped` is the cell of a counter: how many lines found no room, or no file.
    """

    def __init__(self, file: TextIO) -> None:
        self.dropped = [0.0]
        self._is_terminal = file.isatty()
        self._descriptor = file.fileno()
        self._piece_bytes = PIPE_BYTES if stat.S_ISFIFO(os.fstat(self._descriptor).st_mode) else FILE_BYTES
        self._lock = threading.Lock()  # never held while anything is written
        self._news = threading.Event()
        self._waiting: list[str] = []
        self._size = 0  # of what waits, and of what is being written
        self._untold = 0  # dropped lines of which no line has told
        self._is_closing = False
        self._thread = threading.Thread(target=self._write_forever, name="log", daemon=True)
        self._thread.start()

    def isatty(self) -> bool:
        """As TextIO."""
        return self._is_terminal

    def write(self, text: str) -> int:
        """As TextIO; takes whole lines. Never waits."""
        with self._lock:
            if self._size + len(text) > MOST_WAITING:
                self.dropped[0] += 1
                self._untold += 1
                return 0
            self._waiting.append(text)
            self._size += len(text)
        if not self._news.is_set():
            self._news.set()
        return len(text)

    def flush(self) -> None:
        """As TextIO: nothing to do, the thread writes as soon as it can."""

    def close(self) -> None:
        """Write what waits, if that takes no longer than a moment."""
        self._is_closing = True
        self._news.set()
        self._thread.join(CLOSE_SECONDS)

    def _write_forever(self) -> None:
        while not self._is_closing or self._waiting:
            self._news.wait()
            self._news.clear()
            with self._lock:
                lines, self._waiting = self._waiting, []
            is_written = self._put([line.encode(errors="backslashreplace") for line in lines])
            with self._lock:
                self._size -= sum(map(len, lines))
                untold = self._untold
                if is_written:
                    self._untold = 0
                else:
                    self.dropped[0] += len(lines)
                    self._untold += len(lines)
            if untold and is_written:
                log.warning("log_lines_dropped", lines=untold)
            if not self._is_closing:
                time.sleep(GATHER_SECONDS)

    def _put(self, lines: list[bytes]) -> bool:
        """Write whole lines, as many at once as nobody can cut; False where that is not to be had."""
        piece: list[bytes] = []
        size = 0
        try:
            for line in lines:
                if piece and size + len(line) > self._piece_bytes:
                    self._write(b"".join(piece))
                    piece, size = [], 0
                piece.append(line)
                size += len(line)
            self._write(b"".join(piece))
        except OSError:  # closed, or full: there is nobody left to tell
            return False
        return True

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody else who has this file does not wait for it
                select.select([], [self._descriptor], [])
