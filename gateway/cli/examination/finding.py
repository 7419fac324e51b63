"""What a look at one thing came to."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is its stable name, `text` what was seen, `next_step` what to do; never a secret in any of them."""

    check: str
    status: Status
    text: str
    next_step: str | None = None

    @classmethod
    def ok(cls, check: str, text: str) -> "Finding":
        """It is well."""
        return cls(check, Status.OK, text)

    @classmethod
    def warning(cls, check: str, text: str, next_step: str) -> "Finding":
        """It works, and may not for long, or not as one would think."""
        return cls(check, Status.WARNING, text, next_step)

    @classmethod
    def failed(cls, check: str, text: str, next_step: str) -> "Finding":
        """It does not work."""
        return cls(check, Status.FAILED, text, next_step)

    def shown(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "status": self.status.value}
