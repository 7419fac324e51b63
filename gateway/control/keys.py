"""Keys once they exist: listed, changed, rotated and revoked. Must not know: HTTP. API and commands stand on it.

Whoever calls is an `Administrator`; another tenant's key does not exist for them (R272), nor another user's for a user.
"""

from gateway.auth.secrets import sha256_digest
from gateway.control import moments
from gateway.control.admin_tokens import Administrator
from gateway.control.bodies import KeyChange
from gateway.control.deeds import Answer, Deed
from gateway.control.ids import new_id
from gateway.control.issuance import Issuance, OverLimit, check_future, check_limit, revoke_deed
from gateway.control.key_operations import Operation, counted
from gateway.control.key_parts import READ_SECONDS, KeyParts, check_kind, own, shown_key
from gateway.control.mutations import Judge, answer_of
from gateway.control.problems import Problem
from gateway.stores.postgres import key_pages, retired_secrets
from gateway.stores.postgres import keys as sql
from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.keys import KeyRow


class KeyRevoked(Problem):
    """The key was revoked, for good (R222)."""

    code = "key_revoked"
    status = 409
    public = "This key is revoked, and stays so. Create another one."


class KeyExpired(Problem):
    """The key has expired."""

    code = "key_expired"
    status = 409
    public = "This key has expired. Give it a later expires_at first, or create another one."


class RotatedMeanwhile(Problem):
    """The key has another secret than the one that was to be replaced. Only who names that one is told so."""

    code = "rotated_meanwhile"
    status = 409
    public = "This key has been rotated since. Nothing has been changed."


class AlreadyRevoked(Problem):
    """The key was revoked before, and every node has confirmed it (R220, R233)."""

    code = "already_revoked"
    status = 409
    public = "This key was revoked before, and no node admits it."


class Keys:
    """What may be done to keys. Every method raises StoreUnavailable."""

    def __init__(self, parts: KeyParts, issuance: Issuance) -> None:
        self._parts = parts
        self._issuance = issuance

    async def find(self, caller: Administrator, key_id: str) -> KeyRow:
        """The key. Raises NotFound."""
        row = await self._parts.postgres.run(
            lambda c: sql.find(c, key_id, caller.tenant_id), seconds=READ_SECONDS, is_read=True
        )
        return own(row, caller, key_id)

    async def page(
        self,
        caller: Administrator,
        *,
        user_id: str | None = None,
        tenant_id: str | None = None,
        status: str | None = None,
        after: str = "",
        limit: int,
    ) -> list[KeyRow]:
        """Up to `limit` keys after the id `after`, oldest first, among those that the caller may see (R219)."""
        if caller.tenant_id is not None and tenant_id not in (None, caller.tenant_id):
            return []
        if caller.user_id is not None and user_id not in (None, caller.user_id):
            return []
        return await self._parts.postgres.run(
            lambda c: key_pages.page(
                c,
                tenant_id=caller.tenant_id or tenant_id,
                user_id=caller.user_id or user_id,
                status=status,
                after=after,
                limit=limit,
            ),
            seconds=READ_SECONDS,
            is_read=True,
        )

    async def change(self, caller: Administrator, key_id: str, change: KeyChange) -> Answer:
        """Change name, scopes or end. An expired key comes back if its user has room for one more (R214).

        Raises NotFound, KeyRevoked, KeyLimitReached, DuplicateName, InvalidBody, RevocationPending.
        """
        with counted(self._parts.metrics, Operation.UPDATE):
            before = await self.find(caller, key_id)

            async def work(connection: Connection, judge: Judge) -> Deed:
                return await self._change(connection, judge, caller, before, change)

            try:
                return await self._parts.mutations.apply_judged(work, caller=caller, target=f"key:{key_id}")
            except OverLimit as over:
                raise await self._issuance.converge(caller, before.user_id, over.surplus) from over

    async def _change(
        self, connection: Connection, judge: Judge, caller: Administrator, before: KeyRow, change: KeyChange
    ) -> Deed:
        owner = await sql.lock_owner(connection, before.user_id, caller.tenant_id)
        key = own(await sql.lock(connection, before.id, caller.tenant_id), caller, before.id)
        assert owner is not None, "a key has an owner"
        check_kind(key, caller)
        if key.status == "revoked":
            raise KeyRevoked(key.id)
        named = change.model_fields_set
        expires_at = change.expires_at if "expires_at" in named else key.expires_at
        if "expires_at" in named:
            check_future(expires_at, owner.now)
            if key.status == "expired" and key.kind == "user":
                await check_limit(connection, key.user_id, self._parts.settings.max_per_user)
        scopes = key.scopes if change.scopes is None else change.scopes
        ends_sooner = expires_at is not None and (key.expires_at is None or expires_at < key.expires_at)
        judge.declare(is_narrowing=ends_sooner or not set(scopes) >= set(key.scopes))
        name = change.name or key.name
        after = shown_key(await sql.update(connection, key.id, name=name, scopes=scopes, expires_at=expires_at))
        return Deed("key.change", f"key:{key.id}", key.tenant_id, shown_key(key), after, after)

    async def rotate(
        self, caller: Administrator, key_id: str, grace_seconds: int | None, *, replaces: str | None = None
    ) -> Answer:
        """Make a new current secret; the present one works on for `grace_seconds` (default: the configured ones).

        Both or neither happens (R091); rotations at the same moment follow one another, and none loses a secret (R102).
        With a window the change takes nothing away now, so its confirmation is not waited for beyond the bound; but it
        is on record until every node knows the end of the window (R100). The answer is the only one that shows the new
        secret (R090). `replaces` is what is shown of the secret that is to be replaced, where only that one is.
        Raises NotFound, KeyRevoked, KeyExpired, RotatedMeanwhile; RevocationPending where there is no window.
        """
        grace = self._parts.settings.grace_seconds if grace_seconds is None else grace_seconds

        async def work(connection: Connection) -> Deed:
            key = own(await sql.lock(connection, key_id, caller.tenant_id), caller, key_id)
            check_kind(key, caller)
            if key.status == "revoked":
                raise KeyRevoked(key_id)
            if key.status == "expired":
                raise KeyExpired(key_id)
            if replaces not in (None, key.prefix):
                raise RotatedMeanwhile(key_id)
            secret_format = self._parts.format_of(key.environment)
            secret = secret_format.generate()
            retired = await retired_secrets.rotate(
                connection,
                key_id,
                secret_id=new_id("sec"),
                digest=self._parts.peppers.stored_form(sha256_digest(secret.encode())),
                prefix=secret_format.display_prefix(secret),
                grace_seconds=grace,
            )
            shown = shown_key(own(await sql.find(connection, key_id, None), caller, key_id))
            window = {"id": retired.id, "expires_at": moments.text(retired.expires_at)}
            after = {**shown, "retired_secret": window}
            body = {**shown, "secret": secret, "retired_secret": window}
            return Deed("key.rotate", f"key:{key_id}", key.tenant_id, shown_key(key), after, body)

        with counted(self._parts.metrics, Operation.ROTATE):
            return await self._parts.mutations.apply(
                work, caller=caller, target=f"key:{key_id}", is_narrowing=True, must_confirm=grace == 0
            )

    async def revoke(self, caller: Administrator, key_id: str, reason: str | None) -> Answer:
        """Revoke the key and all its secrets, for good (R220 to R222): once this returns, no node admits it.

        Repeating one that could not be confirmed finishes it (R233).
        Raises NotFound, AlreadyRevoked, RevocationPending.
        """
        target = f"key:{key_id}"

        async def work(connection: Connection) -> Deed:
            key = own(await sql.lock(connection, key_id, caller.tenant_id), caller, key_id)
            if key.status == "revoked":
                raise AlreadyRevoked(key_id)
            return revoke_deed(key, await sql.revoke(connection, key_id, reason), reason)

        with counted(self._parts.metrics, Operation.REVOKE):
            try:
                return await self._parts.mutations.apply(work, caller=caller, target=target, is_narrowing=True)
            except AlreadyRevoked:
                propagation = await self._parts.mutations.resume(target)
                if propagation is None:
                    raise
                return answer_of(200, shown_key(await self.find(caller, key_id)), propagation)
