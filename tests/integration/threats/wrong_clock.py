"""A wall clock that is wrong, for one process: libfaketime, which says another time to whoever asks the C library."""

import importlib.util
from pathlib import Path


class WrongClock:
    """Set `environment` for a process, and `set` its clock at any time. The monotonic clock is left alone.

    The library in the wheel of libfaketime is for Linux on x86-64.
    """

    def __init__(self, folder: Path) -> None:
        spec = importlib.util.find_spec("libfaketime")  # found, not imported: importing sets up this process
        assert spec is not None
        assert spec.origin is not None
        library = Path(spec.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
        assert library.exists(), f"no {library}: the wheel of libfaketime is not of this platform"
        self._file = folder / "clock"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead_seconds: int) -> None:
        """From now on the process is so many seconds ahead of the world, or behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_seconds:+d}\n")
        new.replace(self._file)
