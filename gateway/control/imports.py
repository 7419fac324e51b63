"""Imports: many keys whose secrets exist already somewhere else, and are known by their SHA-256 alone.

Every row is decided for itself, as a create is (R211 to R217, R225): a bad one loses no good one. Rows are committed in
small batches, so that nobody waits long for the revision; an import that was cut off is finished by doing it again,
since a row that is there already, with the same content, is left as it is. Must not know: HTTP.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Final

from gateway.control.admin_tokens import Administrator
from gateway.control.deeds import Deed
from gateway.control.ids import new_id
from gateway.control.import_rows import Entry, ImportRow, Mistake
from gateway.control.issuance import IssuanceClosed, is_issuance_open
from gateway.control.key_operations import Operation, Result
from gateway.control.key_parts import KeyParts, shown_key
from gateway.control.mutations import shown
from gateway.errors import GatewayError, StoreUnavailable
from gateway.settings import KeySettings
from gateway.stores.postgres import imports as sql
from gateway.stores.postgres.changes import Change
from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.keys import KeyRow, NewKey, Owner, is_known_secret
from gateway.stores.postgres.keys import owners as owners_of

BATCH: Final = 100  # rows of one transaction: some 20 ms
BATCH_SECONDS: Final = 5.0
MOST_ATTEMPTS: Final = 5  # at a batch that other changes keep overtaking

Shown = dict[str, Any]
Content = tuple[str, str, str, str, str, tuple[str, ...], datetime | None]

MESSAGES: Final = {
    "unknown_user": "There is no such user, or not in this tenant",
    "issuance_closed": "No new API keys are made for the user's organisation at present",
    "duplicate_key": "This digest is or was in use, by a key that is not as this row wants it",
    "duplicate_name": "Another unrevoked key of the tenant has this name",
    "api_access_required": "The user's entitlement does not include API access, or it has ended",
    "key_limit_reached": "The user has as many active keys as allowed",
    "invalid_expires_at": "Name a moment in the future",
}


class _Overtaken(GatewayError):
    """Another transaction came first: begin again. Of this family, so that the connection stays in the pool."""


@dataclass(slots=True)
class Planned:
    """Keys that are to be: of the batch itself; in a dry run, which finds none of them later, of all batches before."""

    is_dry_run: bool = False
    keys: dict[bytes, tuple[str | None, "Content | None"]] = field(default_factory=dict, repr=False)
    names: set[tuple[str, str]] = field(default_factory=set)
    active: Counter[str] = field(default_factory=Counter)

    def add(self, key: NewKey) -> None:
        """Take a key into account for the rows behind it."""
        self.keys[key.digest] = None if self.is_dry_run else key.id, content_of(key)
        self.names.add((key.tenant_id, key.name))
        self.active[key.user_id] += 1


@dataclass(frozen=True, slots=True)
class Known:
    """What decides about a batch: what the database says, and what is planned on top of it."""

    owners: dict[str, Owner]
    active: dict[str, int]
    keys: dict[bytes, tuple[str | None, "Content | None"]] = field(repr=False)  # content None: revoked
    retired: set[bytes] = field(repr=False)
    names: set[tuple[str, str]]
    planned: Planned

    def key_of(self, forms: Sequence[bytes]) -> tuple[str | None, "Content | None"] | None:
        """The key whose current secret this is, and its content."""
        found = (self.planned.keys.get(form) or self.keys.get(form) for form in forms)
        return next((key for key in found if key is not None), None)

    def refusal(self, row: ImportRow, key: NewKey, forms: Sequence[bytes], settings: KeySettings) -> str | None:
        """The code by which a row is refused that is not there yet, or None."""
        owner, name = self.owners[row.user_id], (key.tenant_id, key.name)
        if not is_issuance_open(settings, owner):
            return IssuanceClosed.code
        if self.key_of(forms) is not None or not self.retired.isdisjoint(forms):
            return "duplicate_key"
        if not owner.has_api_access:
            return "api_access_required"
        if self.active.get(row.user_id, 0) + self.planned.active[row.user_id] >= settings.max_per_user:
            return "key_limit_reached"
        if row.expires_at is not None and row.expires_at <= owner.now:
            return "invalid_expires_at"
        return "duplicate_name" if name in self.names or name in self.planned.names else None


def content_of(key: KeyRow | NewKey) -> Content:
    """What must be alike for a key to be the one that a row wants."""
    return key.tenant_id, key.user_id, key.name, key.prefix, key.environment, tuple(key.scopes), key.expires_at


class Imports:
    """Imports keys."""

    def __init__(self, parts: KeyParts) -> None:
        self._parts = parts

    async def run(
        self, caller: Administrator, entries: Iterator[Entry], *, is_dry_run: bool
    ) -> AsyncIterator[list[Shown]]:
        """What came of the rows, a batch at a time when it is committed; at last a batch of the summary alone.

        A dry run tells the same, and changes nothing. Raises StoreUnavailable: what was told by then is done.
        """
        run = _Run(self._parts, caller, is_dry_run=is_dry_run)
        while batch := list(islice(entries, BATCH)):
            yield await run.take(batch)
        yield [{"summary": await run.summary()}]


class _Run:
    """One import under way."""

    def __init__(self, parts: KeyParts, caller: Administrator, *, is_dry_run: bool) -> None:
        self._parts = parts
        self._caller = caller
        self._is_dry_run = is_dry_run
        self._planned = Planned(is_dry_run=is_dry_run)
        self._counts = {"created": 0, "unchanged": 0, "refused": 0}
        self._last = Change("", 0, ())

    async def take(self, batch: list[Entry]) -> list[Shown]:
        for _ in range(MOST_ATTEMPTS):
            with contextlib.suppress(_Overtaken):
                results = await (self._try_out(batch) if self._is_dry_run else self._commit(batch))
                for result in results:
                    self._counts[result["outcome"]] += 1
                if not self._is_dry_run:
                    counter = self._parts.metrics.key_operations
                    refused = sum(result["outcome"] == "refused" for result in results)
                    counter.labels(Operation.IMPORT, Result.REFUSED).inc(refused)
                    counter.labels(Operation.IMPORT, Result.OK).inc(len(results) - refused)
                return results
        raise StoreUnavailable("a batch of an import was overtaken by other changes several times in a row")

    async def summary(self) -> Shown:
        """To be asked at the end: every node is told of what was imported."""
        propagation = None if self._is_dry_run else shown(await self._parts.mutations.tell(self._last))
        total = sum(self._counts.values())
        return {"rows": total, **self._counts, "dry_run": self._is_dry_run, "propagation": propagation}

    async def _commit(self, batch: list[Entry]) -> list[Shown]:
        results: list[Shown] = []

        async def work(connection: Connection) -> list[Deed]:
            known = await self._known(connection, batch, Planned(), are_locked=True)
            results[:], keys, forms = self._decided(batch, known)
            if not keys:
                return []
            made = await sql.insert_all(connection, keys)
            # Between the look and the insert a name may have been given or a secret made; a rotation may have moved a
            # digest into the other table; and another form of it is another digest.
            ids = [key.id for key in keys]
            if len(made) < len(keys) or await is_known_secret(connection, forms, other_than=ids):
                raise _Overtaken("a key was made meanwhile")
            return [Deed("key.import", f"key:{key.id}", key.tenant_id, None, shown_key(key)) for key in made]

        change = await self._parts.mutations.apply_bulk(work, caller=self._caller, target="import:keys")
        self._last = change if change.revision else self._last
        return results

    async def _try_out(self, batch: list[Entry]) -> list[Shown]:
        async def work(connection: Connection) -> Known:
            async with connection.transaction(readonly=True):
                return await self._known(connection, batch, self._planned, are_locked=False)

        known = await self._parts.postgres.run(work, seconds=BATCH_SECONDS, is_read=True)
        results, _, _ = self._decided(batch, known)
        return results

    async def _known(self, connection: Connection, batch: list[Entry], planned: Planned, *, are_locked: bool) -> Known:
        await sql.prepare(connection)
        rows = [row for _, row in batch if isinstance(row, ImportRow)]
        users = sorted({row.user_id for row in rows})
        owners = await owners_of(connection, users, self._caller.tenant_id, are_locked=are_locked)
        forms = [form for row in rows for form in self._forms(row)]
        keys = await sql.keys_of_digests(connection, forms)
        names = [(owners[row.user_id].tenant_id, row.name) for row in rows if row.user_id in owners]
        return Known(
            owners,
            await sql.active_counts(connection, users),
            {form: (key.id, None if key.status == "revoked" else content_of(key)) for form, key in keys.items()},
            await sql.retired_among(connection, forms),
            await sql.names_in_use(connection, names),
            planned,
        )

    def _decided(self, batch: list[Entry], known: Known) -> tuple[list[Shown], list[NewKey], list[bytes]]:
        """What is told of each row, the keys to make, and all stored forms that their secrets may have."""
        results: list[Shown] = []
        keys: list[NewKey] = []
        forms: list[bytes] = []
        for number, row in batch:
            if isinstance(row, Mistake):
                results.append(_refused(number, row.code, row.message))
                continue
            key, of_row = self._key(row, known), self._forms(row)
            there = known.key_of(of_row)
            if key is None:
                results.append(_refused(number, "unknown_user"))
            elif there is not None and there[1] == content_of(key):
                results.append({"row": number, "outcome": "unchanged", "key_id": there[0]})
            elif (code := known.refusal(row, key, of_row, self._parts.settings)) is not None:
                results.append(_refused(number, code))
            else:
                known.planned.add(key)
                keys.append(key)
                forms += of_row
                key_id = None if self._is_dry_run else key.id
                results.append({"row": number, "outcome": "created", "key_id": key_id})
        return results, keys, forms

    def _key(self, row: ImportRow, known: Known) -> NewKey | None:
        """The key that the row wants; None where there is no such user."""
        owner = known.owners.get(row.user_id)
        if owner is None or row.tenant_id not in (None, owner.tenant_id):
            return None
        return NewKey(
            id=new_id("key"),
            secret_id=new_id("sec"),
            digest=self._parts.peppers.stored_form(bytes.fromhex(row.secret_sha256)),
            prefix=row.prefix,
            tenant_id=owner.tenant_id,
            user_id=row.user_id,
            kind="user",
            name=row.name,
            environment=row.environment or self._parts.secret_format.environment,
            scopes=row.scopes,
            expires_at=row.expires_at,
        )

    def _forms(self, row: ImportRow) -> tuple[bytes, ...]:
        return self._parts.peppers.candidates(bytes.fromhex(row.secret_sha256))


def _refused(number: int, code: str, message: str | None = None) -> Shown:
    return {"row": number, "outcome": "refused", "code": code, "message": message or MESSAGES[code]}
