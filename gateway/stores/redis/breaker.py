"""When to stop asking a dependency that does not answer. Pure. Must not know: how it is probed."""

# One timeout costs a caller the whole deadline; an error costs next to nothing and may be one connection's.
ERRORS_TO_OPEN = 3


class Breaker:
    """Closed: calls go through. Open: nobody asks, until a probe has been answered.

    Opens after `timeouts_to_open` timeouts, or after ERRORS_TO_OPEN errors, with no answer between them.
    """

    def __init__(self, timeouts_to_open: int = 1) -> None:
        self.is_open = False
        self._timeouts_to_open = timeouts_to_open
        self._timeouts = 0
        self._errors = 0

    def __repr__(self) -> str:
        return f"<Breaker {'open' if self.is_open else 'closed'} errors={self._errors}>"

    def answered(self) -> bool:
        """The dependency answered. Returns whether this closed the breaker."""
        was_open, self.is_open = self.is_open, False
        self._timeouts = self._errors = 0
        return was_open

    def timed_out(self) -> bool:
        """No answer in time. Returns whether this opened the breaker."""
        self._timeouts += 1
        return self._timeouts >= self._timeouts_to_open and self.opens()

    def failed(self) -> bool:
        """An error instead of an answer. Returns whether this opened the breaker."""
        self._errors += 1
        return self._errors >= ERRORS_TO_OPEN and self.opens()

    def opens(self) -> bool:
        """Open it. Returns whether it was closed."""
        was_open, self.is_open = self.is_open, True
        return not was_open
