"""A change, from its transaction to the moment when no node decides by what was before (the revision rule)."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from gateway.consistency.confirmation import CONFIRMED, Propagation, Propagator
from gateway.control.admin_tokens import Administrator, still_stands
from gateway.control.deeds import BY_TOKEN, Answer, Deed, Shown, record, record_all
from gateway.control.idempotency import AlreadyAnswered, KeptReply
from gateway.control.problems import Unauthenticated
from gateway.errors import GatewayError, StoreUnavailable
from gateway.stores.postgres.changes import Change, Changes
from gateway.stores.postgres.connection import Connection


class Mutations:
    """Commits changes, puts them on record and sees them through to every node.

    Whether the caller still may is part of the transaction: who is revoked meanwhile changes nothing (R275).
    """

    def __init__(self, changes: Changes, propagator: Propagator) -> None:
        self._changes = changes
        self._propagator = propagator

    async def apply(
        self,
        work: Callable[[Connection], Awaitable[Deed]],
        *,
        caller: Administrator,
        target: str,
        is_narrowing: bool,
        must_confirm: bool = True,
        is_answer: bool = True,
    ) -> Answer:
        """Run `work` in one transaction, which puts its deed on record; answer when every node has seen the change.

        `target` (`key:<id>`, `user:<id>` ...) names what the call is about. A call that changes nothing, because an
        earlier one was committed but not confirmed, finishes that one (R233). A narrowing change that takes nothing
        away yet (`must_confirm` false) is in the outbox until it is confirmed, but its answer does not depend on that.
        A request with an Idempotency-Key has its answer kept, or gets that of an earlier one (R301); where a call has
        several transactions, that is done by the last (`is_answer`).
        Raises what `work` raises (then nothing has changed), StoreUnavailable, and RevocationPending if it cannot be
        confirmed, but must be.
        """
        once = caller.once if is_answer else None

        async def transaction(connection: Connection) -> Deed:
            await self._check(connection, caller)
            if once is not None:
                await once.claim(connection)
            deed = await work(connection)
            if once is not None:
                # What is there already may be the work of a call that is not confirmed yet; what is new cannot.
                must = must_confirm and (is_narrowing or deed.before is not None)
                await once.keep(connection, KeptReply(deed.status, deed.body, target, is_narrowing, must))
            await record(connection, deed, caller.origin)
            return deed

        try:
            deed, change = await self._changes.commit(transaction, target=target, is_narrowing=is_narrowing)
        except AlreadyAnswered as earlier:
            return await self.replay(earlier.reply)
        return answer_of(deed.status, deed.body, await self._see_through(change, target, is_narrowing, must_confirm))

    async def _check(self, connection: Connection, caller: Administrator) -> None:
        if caller.origin.kind == BY_TOKEN and not await still_stands(connection, caller):
            raise Unauthenticated(f"{caller.token_id} has ended since the call was let through")

    async def _see_through(self, change: Change, target: str, is_narrowing: bool, must_confirm: bool) -> Propagation:
        if change.revision == 0:
            unfinished = await self._changes.pending(target)
            if unfinished is not None:
                return await self.finish(unfinished)
        propagation = await self._propagator.propagate(change, is_narrowing=is_narrowing and must_confirm)
        if is_narrowing and not must_confirm and propagation.state == CONFIRMED:
            with contextlib.suppress(StoreUnavailable):  # then a relay confirms it once more
                await self._changes.settle(change)
        return propagation

    async def apply_judged(
        self, work: Callable[[Connection, "Judge"], Awaitable[Deed]], *, caller: Administrator, target: str
    ) -> Answer:
        """As `apply`, where only `work`, seeing the locked row, can tell whether the change takes something away.

        `work` says so to its second argument before it changes anything; it may run twice.
        """

        async def attempt(*, may_narrow: bool) -> Answer:
            judge = Judge(may_narrow=may_narrow)
            return await self.apply(lambda c: work(c, judge), caller=caller, target=target, is_narrowing=may_narrow)

        try:
            return await attempt(may_narrow=False)
        except _Narrows:
            return await attempt(may_narrow=True)

    async def apply_bulk(
        self, work: Callable[[Connection], Awaitable[Sequence[Deed]]], *, caller: Administrator, target: str
    ) -> Change:
        """Run `work`, one piece of bulk work that takes nothing away, in one transaction with all its deeds on record.

        No node is told yet: who has done the last piece does so (`tell`). Raises what `work` raises, StoreUnavailable.
        """

        async def transaction(connection: Connection) -> None:
            await self._check(connection, caller)
            await record_all(connection, await work(connection), caller.origin)

        _, change = await self._changes.commit(transaction, target=target, is_narrowing=False)
        return change

    async def tell(self, change: Change) -> Propagation:
        """Bring a committed change that takes nothing away to every node, and with it all that came before."""
        return await self._propagator.propagate(change, is_narrowing=False)

    async def replay(self, kept: KeptReply) -> Answer:
        """Answer once more what was done by an earlier request; how far it has come is told anew (R301).

        Raises StoreUnavailable; RevocationPending as the first request did, until every node knows of the change.
        """
        unfinished = await self._changes.pending(kept.target)
        if unfinished is not None:
            propagation = await self._propagator.propagate(unfinished, is_narrowing=kept.must_confirm)
        elif kept.is_narrowing:  # not in the outbox any more: it is confirmed
            propagation = await self._propagator.propagate(Change(kept.target, 0, ()), is_narrowing=True)
        else:  # who knows of the latest change knows of this one
            latest = await self._changes.latest(kept.target)
            propagation = await self._propagator.propagate(latest, is_narrowing=False)
        return answer_of(kept.status, kept.body, propagation, is_replayed=True)

    async def resume(self, target: str) -> Propagation | None:
        """Finish an earlier narrowing change of `target` that is not confirmed; None where there is none."""
        unfinished = await self._changes.pending(target)
        return None if unfinished is None else await self.finish(unfinished)

    async def finish(self, change: Change) -> Propagation:
        """See a committed narrowing change through. Raises RevocationPending."""
        return await self._propagator.propagate(change, is_narrowing=True)


class Judge:
    """Where the work of `apply_judged` says what it is about to do."""

    def __init__(self, *, may_narrow: bool) -> None:
        self._may_narrow = may_narrow

    def declare(self, *, is_narrowing: bool) -> None:
        """Say whether the change narrows; does not return if the transaction has to begin again as a narrowing one."""
        if is_narrowing and not self._may_narrow:
            raise _Narrows


class NothingToDo(GatewayError):
    """Raised by work that finds nothing left to do, for its own caller. Of this family, as `_Narrows` is."""


class _Narrows(GatewayError):
    """A signal between the two tries; no caller sees it. Of this family, so that the connection stays in the pool."""


def answer_of(status: int, body: Shown | None, propagation: Propagation, *, is_replayed: bool = False) -> Answer:
    """The answer: a body, where there is one, with its `propagation`."""
    full = None if body is None else {**body, "propagation": shown(propagation)}
    return Answer(status, full, is_replayed)


def shown(propagation: Propagation) -> dict[str, Any]:
    """The `propagation` member of a reply."""
    return asdict(propagation)
