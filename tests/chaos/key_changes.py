"""What can be done to keys and their secrets. What takes something away says when it is to be given back."""

import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Protocol

from tests.chaos.cast import FORMAT, REPORTS, REPORTS_SCOPE, Cast, Key, Part, Secret, User
from tests.chaos.operators import Call, Operators, Reply

ALREADY_REVOKED = frozenset({"already_revoked"})
LONG_GRACE_SECONDS = 3600

Act = Callable[[], Awaitable[None]]


class Later(Protocol):
    """Where a change says what has to follow it."""

    def __call__(self, act: Act, /, *held: Part) -> None:
        """Have `act` done in a while, by whoever holds these then; never, if one of them is gone."""
        ...


class KeyChanges:
    """One writer's hands on keys. Whoever calls holds what is changed, so that nobody else is at it."""

    def __init__(self, operators: Operators, cast: Cast, later: Later, *, seed: str) -> None:
        self._operators = operators
        self._cast = cast
        self._later = later
        self._random = random.Random(seed)

    # -- keys

    async def new_key(self, user: User) -> None:
        """A key; of every other the secret was known before, and asked for in vain."""
        own = FORMAT.generate() if self._random.random() < 0.5 else None
        key = Key(self._cast.name("key"), user=user)
        body: dict[str, object] = {"user_id": user.name, "name": key.name, "scopes": [REPORTS_SCOPE]}
        secret = Secret(own or "", key)
        if own is not None:
            body |= {"secret_sha256": hashlib.sha256(own.encode()).hexdigest(), "prefix": FORMAT.display_prefix(own)}
            self._operators.watch([secret])
        gates = (secret.valid, key.valid, key.reports)
        reply = await self._operators.widen(Call("key created", "POST", "/v1/keys", body), gates, [])
        if not reply.is_done:
            # The user cannot have one now; or an earlier call, that was cut off, has made it, and its id is not known.
            assert reply.code in ("api_access_required", "duplicate_name", "duplicate_key"), reply
            self._later(partial(self.new_key, user), user)
            return
        key.id, secret.text = reply.body["id"], own or reply.body["secret"]
        key.secrets.append(secret)
        user.keys.append(key)
        self._cast.keys.append(key)
        self._cast.secrets.append(secret)
        self._operators.watch([secret])

    async def revoke(self, key: Key) -> None:
        """For good; another key takes its place."""
        call = Call("key revoked", "POST", f"/v1/keys/{key.id}/revoke", {}, ALREADY_REVOKED)
        reply = await self._operators.narrow(call, [key.valid], self._cast.secrets_of(key))
        assert reply.is_done, reply
        self._replace(key)

    async def revoke_in_sql(self, key: Key) -> None:
        """As typed into psql."""
        statement = "UPDATE api_keys SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL"
        await self._operators.type_in("key revoked in psql", statement, key.id, [key.valid], self._cast.secrets_of(key))
        self._replace(key)

    async def delete_in_sql(self, key: Key) -> None:
        """As typed into psql."""
        statement = "DELETE FROM api_keys WHERE id = $1"
        await self._operators.type_in("key deleted in psql", statement, key.id, [key.valid], self._cast.secrets_of(key))
        self._replace(key)

    def _replace(self, key: Key) -> None:
        self._cast.remove_key(key)
        self._later(partial(self.new_key, key.user), key.user)

    async def expire_soon(self, key: Key) -> None:
        """Its end comes in a moment; then it is given a later one, or revoked."""
        ends_at = time.time() + self._random.uniform(0.2, 1.2)
        call = Call("key's end set", "PATCH", f"/v1/keys/{key.id}", {"expires_at": ends_at})
        reply = await self._operators.narrow(call, [key.valid], self._cast.secrets_of(key), ends_at=lambda _: ends_at)
        if not reply.is_done:
            # The moment had passed before anybody could be asked, or between a call and its repeat.
            assert reply.code == "invalid_expires_at", reply
            await self.revoke(key)
        else:
            self._later(partial(self.revive if self._random.random() < 0.6 else self.revoke, key), key)

    async def revive(self, key: Key) -> None:
        """A later end."""
        call = Call("key's end taken back", "PATCH", f"/v1/keys/{key.id}", {"expires_at": None})
        await self._operators.widen(call, [key.valid], self._cast.secrets_of(key))

    async def take_scope(self, key: Key) -> None:
        """It may not read reports any more."""
        call = Call("scope taken", "PATCH", f"/v1/keys/{key.id}", {"scopes": []})
        await self._operators.narrow(call, [key.reports], self._cast.secrets_of(key), path=REPORTS)
        self._later(partial(self.give_scope, key), key)

    async def give_scope(self, key: Key) -> None:
        """It may again."""
        call = Call("scope given", "PATCH", f"/v1/keys/{key.id}", {"scopes": [REPORTS_SCOPE]})
        await self._operators.widen(call, [key.reports], self._cast.secrets_of(key), path=REPORTS)

    # -- secrets

    async def rotate_at_once(self, key: Key) -> None:
        """The old secret ends with the answer."""
        old = key.secrets[-1]
        call = Call("rotated at once", "POST", f"/v1/keys/{key.id}/rotate", {"grace_seconds": 0})
        reply = await self._operators.narrow(call, [old.valid], [old, *old.tokens])
        self._add_secret(key, reply.body["secret"], reply.answered_at)
        self._cast.retire(old)

    async def rotate_for_a_moment(self, key: Key) -> None:
        """The old secret ends by itself, a second later."""
        old = key.secrets[-1]
        call = Call("rotated with a short window", "POST", f"/v1/keys/{key.id}/rotate", {"grace_seconds": 1})
        reply = await self._operators.narrow(call, [old.valid], [old, *old.tokens], ends_at=_end_of_window)
        self._add_secret(key, reply.body["secret"], reply.answered_at)
        self._cast.retire(old)

    async def rotate(self, key: Key) -> None:
        """Both secrets work, without a gap, until the window is ended."""
        old = key.secrets[-1]
        call = Call("rotated", "POST", f"/v1/keys/{key.id}/rotate", {"grace_seconds": LONG_GRACE_SECONDS})
        reply = await self._operators.widen(call, [], [old])
        self._add_secret(key, reply.body["secret"], reply.answered_at)
        if reply.attempts > 1:
            # Which retired secret is the old one is not known.
            self._later(partial(self.revoke, key), key)
        else:
            self._later(partial(self.end_window, key, old, reply.body["retired_secret"]["id"]), key)

    async def end_window(self, key: Key, old: Secret, retired_id: str) -> None:
        """The old secret ends now; some windows are reopened."""
        call = Call("window ended", "PATCH", f"/v1/retired-secrets/{retired_id}", {"expires_at": 0})
        await self._operators.narrow(call, [old.valid], [old, *old.tokens])
        if self._random.random() < 0.3:
            self._later(partial(self.reopen_window, key, old, retired_id), key)
        else:
            self._cast.retire(old)

    async def reopen_window(self, key: Key, old: Secret, retired_id: str) -> None:
        """The old secret works once more, and is ended later."""
        body = {"expires_at": time.time() + LONG_GRACE_SECONDS}
        call = Call("window reopened", "PATCH", f"/v1/retired-secrets/{retired_id}", body)
        await self._operators.widen(call, [old.valid], [old, *old.tokens])
        self._later(partial(self.end_window, key, old, retired_id), key)

    def _add_secret(self, key: Key, text: str, at: float) -> None:
        secret = Secret(text, key)
        secret.valid.opening(f"made by a rotation, answered {at:.3f}")
        secret.valid.opened(at)
        key.secrets.append(secret)
        self._cast.secrets.append(secret)
        self._operators.watch([secret])


def _end_of_window(reply: Reply) -> float:
    return datetime.fromisoformat(reply.body["retired_secret"]["expires_at"]).timestamp()
