"""A rotation that is under way: which secret is in use, and whether the old one can go. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.stores.postgres.keys import KeyRow
from gateway.stores.postgres.retired_secrets import RetiredSecretRow


@dataclass(frozen=True, slots=True)
class Rotation:
    """A key, and its old secrets that still work, the latest last; there is at least one."""

    key: KeyRow
    retired: Sequence[RetiredSecretRow]

    @property
    def has_arrived(self) -> bool:
        """Whether the new secret has been used."""
        return self.key.secret_first_used_at is not None

    @property
    def left_at(self) -> datetime | None:
        """When an old secret was last used."""
        return max((one.last_used_at for one in self.retired if one.last_used_at is not None), default=None)

    @property
    def is_old_in_use(self) -> bool:
        """Whether an old secret was used after the rotation."""
        return any(one.last_used_at is not None and one.last_used_at > one.retired_at for one in self.retired)

    @property
    def said(self) -> str:
        """How it stands, in words without numbers, which change only when it does."""
        if not self.has_arrived and self.is_old_in_use:
            return "Your programs still send the old secret. The new one has not been used yet."
        if not self.has_arrived:
            return "Neither secret has been used since the rotation."
        if self.is_old_in_use and self.left_at is not None and self.left_at > self.arrived_at:
            return "Both secrets are in use: some of your programs still send the old one."
        return "The new secret is in use, and the old one has not been used since: you can finish now."

    @property
    def arrived_at(self) -> datetime:
        """When the new secret was first used, where it was."""
        assert self.key.secret_first_used_at is not None
        return self.key.secret_first_used_at
