"""How soon a worker that has died is started again."""

from typing import Final

SHORT_LIFE_SECONDS: Final = 10.0
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0


class Backoff:
    """At once; but where the one before died young as well, after a pause, which doubles up to half a minute."""

    def __init__(self) -> None:
        self._young_deaths = 0

    def pause_after(self, lived_seconds: float) -> float:
        """The pause, in seconds, after a worker that has lived so long."""
        if lived_seconds >= SHORT_LIFE_SECONDS:
            self._young_deaths = 0
            return 0.0
        self._young_deaths += 1
        if self._young_deaths == 1:
            return 0.0
        return min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._young_deaths - 2, 10), LONGEST_PAUSE_SECONDS)
