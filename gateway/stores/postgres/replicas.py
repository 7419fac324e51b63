"""Read replicas of the truth: asked first, believed as far as their stamp goes, left alone while they fail.

A replica that lags stamps what it finds with its own revision, which is honestly old; whether that will do is for the
rule to say (docs/consistency.md). Must not know: views.
"""

import hmac
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

import structlog

from gateway.errors import MalformedRow, StoreUnavailable
from gateway.stores.postgres.lookup import KeyLookup
from gateway.stores.records import Finding

log = structlog.get_logger(__name__)

LEFT_ALONE_SECONDS: Final = 1.0


class Replica:
    """One replica, and since when it is left alone."""

    def __init__(self, lookup: KeyLookup, number: int) -> None:
        self.lookup = lookup
        self.number = number
        self.away_until = -inf
        self.is_failing = False


class Replicas:
    """Asks its replicas in turn, one per question."""

    def __init__(self, lookups: Sequence[KeyLookup], *, monotonic: Callable[[], float]) -> None:
        self._replicas = [Replica(lookup, number) for number, lookup in enumerate(lookups)]
        self._monotonic = monotonic
        self._turn = 0

    async def find(self, digests: tuple[bytes, ...]) -> Finding | None:
        """What a replica knows of these stored digests (the current form first); None where none could be asked.

        Also None for what is found under an older form: the primary renews it.
        """
        now = self._monotonic()
        fit = [replica for replica in self._replicas if now >= replica.away_until]
        if not fit:
            return None
        self._turn += 1
        replica = fit[self._turn % len(fit)]
        try:
            finding = await replica.lookup.find(digests)
        except MalformedRow:
            return None  # the fault of one key: the primary tells it
        except StoreUnavailable as error:
            replica.away_until = self._monotonic() + LEFT_ALONE_SECONDS
            if not replica.is_failing:
                log.warning("replica_failing", replica=replica.number, error=str(error))
            replica.is_failing = True
            return None
        replica.is_failing = False
        is_current_form = finding.record is None or hmac.compare_digest(finding.record.digest, digests[0])
        return finding if is_current_form else None
