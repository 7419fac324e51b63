"""Writers: each changes what nobody else is at, at random, and gives back what it took."""

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tests.chaos.cast import Cast, Key, Part, Plan, Secret, Tenant, User
from tests.chaos.key_changes import Act, KeyChanges, Later
from tests.chaos.measures import Measures
from tests.chaos.operators import Call, Operators
from tests.chaos.owner_changes import BARE_PLAN, OwnerChanges
from tests.chaos.token_changes import TokenChanges

GIVEN_BACK_SECONDS = (0.3, 2.0)
PLANS, TENANTS = 4, 8

P = TypeVar("P", bound=Part)


class Writer:
    """Makes changes until `is_enough`."""

    def __init__(
        self,
        number: int,
        operators: Operators,
        tokens: TokenChanges,
        measures: Measures,
        cast: Cast,
        *,
        is_enough: Callable[[], bool],
    ) -> None:
        seed = f"{measures.seed}: writer {number}"
        self._cast = cast
        self._random = random.Random(seed)
        self._is_enough = is_enough
        self._think_seconds = measures.think_seconds
        keys, owners = _hands(operators, cast, self._later, seed=seed)
        self._owners = owners
        self._tokens = tokens
        self._due: list[tuple[float, int, Act, tuple[Part, ...]]] = []
        self._numbers = itertools.count()
        # How often, and what.
        self._habits: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (12, lambda: self._with_key(keys.revoke)),
            (7, lambda: self._with_key(keys.expire_soon)),
            (7, lambda: self._with_key(keys.take_scope)),
            (6, lambda: self._with_key(keys.rotate_at_once)),
            (5, lambda: self._with_key(keys.rotate_for_a_moment)),
            (8, lambda: self._with_key(keys.rotate)),
            (3, lambda: self._with_key(keys.revoke_in_sql)),
            (2, lambda: self._with_key(keys.delete_in_sql)),
            (8, lambda: self._with_user(owners.withdraw)),
            (4, lambda: self._with_user(owners.suspend_user)),
            (3, lambda: self._with_user(owners.take_feature)),
            (2, lambda: self._with_user(owners.suspend_user_in_sql)),
            (2, lambda: self._with_user(owners.delete_entitlement_in_sql)),
            (2, self._delete_user),
            (3, self._suspend_tenant),
            (2, lambda: self._with_plan(owners.close_plan)),
            (2, lambda: self._with_plan(owners.lower_plan)),
            (5, lambda: self._with_key(tokens.mint)),
            (0.5, self._withdraw_signer),
            (0.5, self._revoke_admin_token),
        ]
        # Between them, writers begin with one of each.
        self._first = [habit for _, habit in self._habits[number :: measures.writers]]

    async def write(self) -> None:
        """Go on until it is enough, and give everything back."""
        while not self._is_enough():
            await asyncio.sleep(self._random.uniform(0, 2 * self._think_seconds))
            if not await self._pay():
                await self._next()()
        while self._due:
            if not await self._pay():
                await asyncio.sleep(0.05)

    def _next(self) -> Callable[[], Awaitable[None]]:
        if self._first:
            return self._first.pop()
        weights = [weight for weight, _ in self._habits]
        return self._random.choices(self._habits, weights)[0][1]

    def _later(self, act: Act, /, *held: Part) -> None:
        due = time.monotonic() + self._random.uniform(*GIVEN_BACK_SECONDS)
        heapq.heappush(self._due, (due, next(self._numbers), act, held))

    async def _pay(self) -> bool:
        """Do the next thing that was to be done later, if its time has come; whether anything was done."""
        if not self._due or self._due[0][0] > time.monotonic():
            return False
        _, _, act, held = heapq.heappop(self._due)
        if any(part.is_gone for part in held):
            return True
        if any(part.is_busy for part in held):
            self._later(act, *held)
            return False
        await self._holding(held, act)
        return True

    async def _holding(self, parts: Sequence[Part], act: Act) -> None:
        for part in parts:
            part.is_busy = True
        try:
            await act()
        finally:
            for part in parts:
                part.is_busy = False

    def _free(self, parts: Sequence[P], is_ready: Callable[[P], bool]) -> P | None:
        for part in self._random.sample(parts, min(20, len(parts))):
            if not part.is_busy and is_ready(part):
                return part
        return None

    async def _with_key(self, change: Callable[[Key], Awaitable[None]]) -> None:
        key = self._free(self._cast.keys, lambda key: key.valid.is_open and key.reports.is_open)
        if key is not None:
            await self._holding([key], lambda: change(key))

    async def _with_user(self, change: Callable[[User], Awaitable[None]]) -> None:
        user = self._free(self._cast.users, _is_whole)
        if user is not None:
            await self._holding([user], lambda: change(user))

    async def _delete_user(self) -> None:
        user = self._free(self._cast.users, lambda user: _is_whole(user) and not any(key.is_busy for key in user.keys))
        if user is not None:
            await self._holding([user, *user.keys], lambda: self._owners.delete_user(user))

    async def _suspend_tenant(self) -> None:
        tenant = self._free(self._cast.tenants, lambda tenant: tenant.active.is_open)
        if tenant is not None:
            await self._holding([tenant], lambda: self._owners.suspend_tenant(tenant))

    async def _with_plan(self, change: Callable[[Plan], Awaitable[None]]) -> None:
        plan = self._free(self._cast.plans, lambda plan: plan.access.is_open and plan.premium.is_open)
        if plan is not None:
            await self._holding([plan], lambda: change(plan))

    async def _withdraw_signer(self) -> None:
        # One at a time: the next one signs from then on, and every node has to know it by then.
        if not self._cast.signing.is_busy:
            signer = self._free(list(self._cast.signers.values()), lambda signer: not signer.is_gone)
            if signer is not None:
                await self._holding([self._cast.signing, signer], lambda: self._tokens.withdraw(signer))

    async def _revoke_admin_token(self) -> None:
        # Those who call need one that is good.
        token = self._free(self._cast.admin_tokens[1:], lambda _: True)
        if token is not None:
            await self._holding([token], lambda: self._tokens.revoke_admin_token(token))


def _is_whole(user: User) -> bool:
    return user.active.is_open and user.entitled.is_open and user.export.is_open


def _hands(operators: Operators, cast: Cast, later: Later, *, seed: str) -> tuple[KeyChanges, OwnerChanges]:
    keys = KeyChanges(operators, cast, later, seed=f"{seed}: keys")
    return keys, OwnerChanges(operators, cast, later, keys, seed=f"{seed}: owners")


def _never(_: Act, /, *held: Part) -> None:
    """Nothing follows."""


async def populate(operators: Operators, measures: Measures, cast: Cast) -> Secret:
    """Make plans, tenants, users and their keys, before anything is hurt; returns a secret that nobody will touch."""
    _, owners = _hands(operators, cast, _never, seed="population")
    call = Call("plan created", "PUT", f"/v1/plans/{BARE_PLAN}", {"tier": 2, "features": {"export": True}})
    await operators.widen(call, [], [])
    cast.plans += [Plan(cast.name("plan")) for _ in range(PLANS)]
    cast.tenants += [Tenant(cast.name("tenant")) for _ in range(TENANTS)]
    left_alone = Plan("plan-left-alone"), Tenant("tenant-left-alone")
    await asyncio.gather(*(owners.restore_plan(each) for each in (*cast.plans, left_alone[0])))
    await asyncio.gather(*(owners.new_tenant(tenant) for tenant in (*cast.tenants, left_alone[1])))
    await owners.new_user(left_alone[1], left_alone[0])
    (secret, *_) = cast.secrets
    for all_of_them in (cast.users, cast.keys, cast.secrets):
        all_of_them.clear()
    for _ in range(0, measures.users, TENANTS):
        await asyncio.gather(
            *(owners.new_user(tenant, cast.plans[number % PLANS]) for number, tenant in enumerate(cast.tenants))
        )
    return secret
