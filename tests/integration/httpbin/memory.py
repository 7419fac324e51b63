"""How much memory a process takes at its peak, as Linux tells."""

from pathlib import Path

KEEP_FROM_HERE = "5"  # makes the kernel forget the peak so far (proc(5), clear_refs)


class PeakMemory:
    """Counts from when it is made."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        (self._folder / "clear_refs").write_text(KEEP_FROM_HERE)
        self._before = self._bytes("VmRSS")

    @property
    def growth_bytes(self) -> int:
        """By how much the resident set has exceeded, at its largest, what it was in the beginning."""
        return self._bytes("VmHWM") - self._before

    def _bytes(self, name: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name} in {self._folder}/status")
