"""The signing keys of one environment: made, moved on by age or by command, withdrawn; and a node's knowledge of them.

A new key is published as `next` for as long as its predecessor signs: whoever verifies, here or elsewhere, knows it
before it is used, so that a rotation is noticed by nobody. Several nodes may tend the same keys.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from gateway.auth.signing import SealBroken, Sealer, SigningKey
from gateway.auth.tokens import Signers
from gateway.consistency.background import Background, woken
from gateway.control import moments
from gateway.control.admin_tokens import Administrator
from gateway.control.deeds import Deed
from gateway.control.ids import new_id
from gateway.control.mutations import Mutations
from gateway.control.problems import NotFound, Problem
from gateway.errors import StoreUnavailable
from gateway.setting_values import TOKEN_SECONDS_MAXIMUM
from gateway.stores.postgres import signing_keys as sql
from gateway.stores.postgres.connection import Connection, Postgres
from gateway.stores.postgres.signing_keys import SigningKeyRow

READ_SECONDS: Final = 2.0
TEND_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 1.0
# What a key has signed may live as long, by this much more for clocks and leeway.
BELIEVED_SECONDS: Final = TOKEN_SECONDS_MAXIMUM + 86400

Rows = list[SigningKeyRow]  # below, `list` is a method

log = structlog.get_logger(__name__)


class AlreadyWithdrawn(Problem):
    """The signing key is retired, and every node knows."""

    code = "already_withdrawn"
    status = 409
    public = "This signing key is withdrawn already."


class SigningKeys:
    """What `caller` does to signing keys, and puts on record. Every method raises StoreUnavailable."""

    def __init__(
        self,
        postgres: Postgres,
        mutations: Mutations,
        sealer: Sealer,
        *,
        caller: Administrator,
        environment: str,
        rotate_after_seconds: float,
    ) -> None:
        self._postgres = postgres
        self._mutations = mutations
        self._sealer = sealer
        self._caller = caller
        self._environment = environment
        self._rotate_after_seconds = rotate_after_seconds

    async def list(self) -> Rows:
        """All of them, the oldest first."""
        return await self._postgres.run(
            lambda connection: sql.listed(connection, self._environment), seconds=READ_SECONDS, is_read=True
        )

    async def tend(self) -> None:
        """See to it that there is one that signs, not for too long, and a next one; and forget those of long ago.

        Raises SealBroken where the one that signs cannot be used.
        """
        if self._is_tended(await self.list()):
            return

        async def work(connection: Connection) -> None:
            rows = await sql.listed(connection, self._environment)
            if any(row.state == "current" and row.age_seconds >= self._rotate_after_seconds for row in rows):
                await self._advance(connection)
            await sql.retire_older(connection, self._environment, BELIEVED_SECONDS)
            await self._complete(connection)

        await self._change("signing_key.tend", work)
        log.info("signing_keys_tended")

    def _is_tended(self, rows: Rows) -> bool:
        by_state = {row.state: row for row in rows}
        is_young = self.opened(rows) is not None and by_state["current"].age_seconds < self._rotate_after_seconds
        return is_young and "next" in by_state

    def opened(self, rows: Rows) -> SigningKey | None:
        """The one of these that signs, to sign by; None where none does. Raises SealBroken."""
        current = next((row for row in rows if row.state == "current"), None)
        if current is None:
            return None
        assert current.sealed_key is not None
        return SigningKey(current.id, self._sealer.open(current.id, current.sealed_key))

    async def rotate(self) -> Rows:
        """Let the next key sign from now on. The present one is believed until all it has signed has ended."""

        async def work(connection: Connection) -> None:
            await self._complete(connection)
            await self._advance(connection)

        await self._change("signing_key.rotate", work)
        return await self.list()

    async def withdraw(self, key_id: str) -> Rows:
        """Let nobody believe this key any more: when it is answered, every token that it has signed is refused.

        Raises NotFound, AlreadyWithdrawn, RevocationPending.
        """

        async def work(connection: Connection) -> None:
            row = next((row for row in await sql.listed(connection, self._environment) if row.id == key_id), None)
            if row is None:
                raise NotFound(f"no signing key {key_id!r}")
            if row.state == "retired":
                raise AlreadyWithdrawn(key_id)
            await sql.retire(connection, self._environment, key_id)
            await self._complete(connection)

        target = f"signer:{key_id}"
        if await self._mutations.resume(target) is None:
            await self._change("signing_key.withdraw", work, target=target, is_narrowing=True)
        return await self.list()

    async def _change(
        self,
        action: str,
        work: Callable[[Connection], Awaitable[None]],
        *,
        target: str | None = None,
        is_narrowing: bool = False,
    ) -> None:
        """Do `work` with the keys of this environment locked, and put on record how they stood before and after."""
        about = target or f"signers:{self._environment}"

        async def locked(connection: Connection) -> Deed:
            await sql.lock(connection, self._environment)
            before = await self._on_record(connection)
            await work(connection)
            return Deed(action, about, None, before, await self._on_record(connection))

        await self._mutations.apply(locked, caller=self._caller, target=about, is_narrowing=is_narrowing)

    async def _on_record(self, connection: Connection) -> dict[str, Any]:
        rows = await sql.listed(connection, self._environment)
        return {"signing_keys": [shown(row) for row in rows if row.state != "retired"]}

    async def _advance(self, connection: Connection) -> None:
        await sql.advance(connection, self._environment)
        await self._make_next(connection)

    async def _complete(self, connection: Connection) -> None:
        """Make what is missing: a next key, and one that signs."""
        states = {row.state for row in await sql.listed(connection, self._environment)}
        if "next" not in states:
            await self._make_next(connection)
        if "current" not in states:
            await self._advance(connection)

    async def _make_next(self, connection: Connection) -> None:
        key_id = new_id("sig")
        public_key, sealed_key = self._sealer.new_key(key_id)
        await sql.insert_next(
            connection, self._environment, key_id=key_id, public_key=public_key, sealed_key=sealed_key
        )


class SignerKeeper:
    """Keeps this node's `signers` up to date, and the keys themselves tended."""

    def __init__(self, keys: SigningKeys, signers: Signers) -> None:
        self._keys = keys
        self._signers = signers
        self._background = Background()

    async def start(self) -> None:
        """Begin. Raises SealBroken; a database that is away is asked again later."""
        with contextlib.suppress(StoreUnavailable):
            await self._keys.tend()
            await self._read()
        self._background.start(self._keep_forever)

    async def close(self) -> None:
        """Stop."""
        await self._background.close()

    async def _keep_forever(self) -> None:
        due = 0.0
        now = asyncio.get_running_loop().time
        while True:
            try:
                if now() >= due:
                    await self._keys.tend()
                    due = now() + TEND_SECONDS
                await self._read()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except SealBroken as error:
                log.error("signing_key_sealed_otherwise", error=str(error))
                due = now() + TEND_SECONDS
                continue
            await woken(self._signers.news, seconds=TEND_SECONDS)

    async def _read(self) -> None:
        begun = self._signers.begin()
        rows = await self._keys.list()
        try:
            current = self._keys.opened(rows)
        except SealBroken as error:
            log.error("signing_key_sealed_otherwise", error=str(error))
            current = None
        self._signers.take({row.id: row.public_key for row in rows if row.state != "retired"}, begun, current)


def shown(row: SigningKeyRow) -> dict[str, Any]:
    """A signing key as it may be shown: never its private part."""
    return {
        "id": row.id,
        "state": row.state,
        "created_at": moments.text(row.created_at),
        "activated_at": moments.text(row.activated_at),
        "replaced_at": moments.text(row.replaced_at),
        "retired_at": moments.text(row.retired_at),
    }
