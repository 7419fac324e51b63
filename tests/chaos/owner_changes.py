"""What can be done to users, entitlements, tenants and plans, and how it is given back."""

import random
import time
from functools import partial

from tests.chaos.cast import EXPORTS, PLAIN, PREMIUM, Cast, Plan, Tenant, User
from tests.chaos.gates import Gate
from tests.chaos.key_changes import KeyChanges, Later
from tests.chaos.operators import Call, Operators

NOT_FOUND = frozenset({"not_found"})
BARE_PLAN = "bare"
FEATURES = {"api_access": True, "export": True}
KEYS_PER_USER = 4


class OwnerChanges:
    """One writer's hands on what stands behind keys. Whoever calls holds what is changed."""

    def __init__(self, operators: Operators, cast: Cast, later: Later, keys: KeyChanges, *, seed: str) -> None:
        self._operators = operators
        self._cast = cast
        self._later = later
        self._keys = keys
        self._random = random.Random(seed)

    # -- users and entitlements

    async def new_user(self, tenant: Tenant, plan: Plan) -> None:
        """A user with an entitlement and keys."""
        user = User(self._cast.name("user"), tenant=tenant, plan=plan)
        call = Call("user created", "PUT", f"/v1/users/{user.name}", {"tenant_id": tenant.name})
        await self._operators.widen(call, [user.active], [])
        await self.entitle(user)
        for _ in range(KEYS_PER_USER):
            await self._keys.new_key(user)
        self._cast.users.append(user)

    async def suspend_user(self, user: User) -> None:
        """All the user's keys are refused."""
        call = Call("user suspended", "PUT", f"/v1/users/{user.name}", _status(user, "suspended"))
        await self._operators.narrow(call, [user.active], self._cast.secrets_of(user))
        self._later(partial(self.activate_user, user), user)

    async def suspend_user_in_sql(self, user: User) -> None:
        """As typed into psql."""
        statement = "UPDATE users SET status = 'suspended' WHERE id = $1"
        secrets = self._cast.secrets_of(user)
        await self._operators.type_in("user suspended in psql", statement, user.name, [user.active], secrets)
        self._later(partial(self.activate_user, user), user)

    async def activate_user(self, user: User) -> None:
        """They are admitted again."""
        call = Call("user active again", "PUT", f"/v1/users/{user.name}", _status(user, "active"))
        await self._operators.widen(call, [user.active], self._cast.secrets_of(user))

    async def delete_user(self, user: User) -> None:
        """With all keys; another user takes the place."""
        call = Call("user deleted", "DELETE", f"/v1/users/{user.name}", done_before=NOT_FOUND)
        reply = await self._operators.narrow(call, [user.active], self._cast.secrets_of(user))
        assert reply.is_done, reply
        self._cast.remove_user(user)
        self._later(partial(self.new_user, user.tenant, user.plan))

    async def entitle(self, user: User) -> None:
        """To all of the plan."""
        call = Call("entitlement given", "PUT", _entitlement(user), {"plan": user.plan.name})
        await self._operators.widen(call, [user.entitled, user.export], self._cast.secrets_of(user))

    async def withdraw(self, user: User) -> None:
        """The entitlement ends in one of the ways in which it can."""
        plan, path = user.plan.name, _entitlement(user)
        soon = time.time() + self._random.uniform(0.2, 1.0)
        call, ends_at = self._random.choice(
            [
                (Call("entitlement deleted", "DELETE", path, done_before=NOT_FOUND), 0.0),
                (Call("entitlement moved to a plan without access", "PUT", path, {"plan": BARE_PLAN}), 0.0),
                (
                    Call("entitlement without access", "PUT", path, {"plan": plan, "features": {"api_access": False}}),
                    0.0,
                ),
                (Call("entitlement lapsed", "PUT", path, {"plan": plan, "valid_until": 0}), 0.0),
                (Call("entitlement's end set", "PUT", path, {"plan": plan, "valid_until": soon}), soon),
            ]
        )
        secrets = self._cast.secrets_of(user)
        reply = await self._operators.narrow(call, [user.entitled], secrets, ends_at=lambda _: ends_at)
        assert reply.is_done, reply
        self._later(partial(self.entitle, user), user)

    async def delete_entitlement_in_sql(self, user: User) -> None:
        """As typed into psql."""
        statement, secrets = "DELETE FROM entitlements WHERE user_id = $1", self._cast.secrets_of(user)
        what = "entitlement deleted in psql"
        await self._operators.type_in(what, statement, user.name, [user.entitled], secrets)
        self._later(partial(self.entitle, user), user)

    async def take_feature(self, user: User) -> None:
        """No exports any more."""
        body = {"plan": user.plan.name, "features": {"export": False}}
        call = Call("feature taken", "PUT", _entitlement(user), body)
        await self._operators.narrow(call, [user.export], self._cast.secrets_of(user), path=EXPORTS)
        self._later(partial(self.entitle, user), user)

    # -- tenants and plans

    async def new_tenant(self, tenant: Tenant) -> None:
        """A tenant."""
        call = Call("tenant created", "POST", "/v1/tenants", {"id": tenant.name, "name": tenant.name})
        await self._operators.widen(call, [tenant.active], [])

    async def suspend_tenant(self, tenant: Tenant) -> None:
        """All keys of the tenant are refused."""
        call = Call("tenant suspended", "PATCH", f"/v1/tenants/{tenant.name}", {"status": "suspended"})
        await self._operators.narrow(call, [tenant.active], self._cast.secrets_of(tenant))
        self._later(partial(self.activate_tenant, tenant), tenant)

    async def activate_tenant(self, tenant: Tenant) -> None:
        """They are admitted again."""
        call = Call("tenant active again", "PATCH", f"/v1/tenants/{tenant.name}", {"status": "active"})
        await self._operators.widen(call, [tenant.active], self._cast.secrets_of(tenant))

    async def close_plan(self, plan: Plan) -> None:
        """Nobody with this plan has access."""
        await self._edit(plan, "plan without access", [plan.access], {"api_access": False, "export": True}, 2)

    async def lower_plan(self, plan: Plan) -> None:
        """Its tier is lower."""
        await self._edit(plan, "plan with a lower tier", [plan.premium], FEATURES, 1, path=PREMIUM)

    async def _edit(
        self, plan: Plan, what: str, gates: list[Gate], features: object, tier: int, path: str = PLAIN
    ) -> None:
        call = Call(what, "PUT", f"/v1/plans/{plan.name}", {"tier": tier, "features": features})
        await self._operators.narrow(call, gates, self._cast.secrets_of(plan), path=path)
        self._later(partial(self.restore_plan, plan), plan)

    async def restore_plan(self, plan: Plan) -> None:
        """As it was."""
        call = Call("plan restored", "PUT", f"/v1/plans/{plan.name}", {"tier": 2, "features": FEATURES})
        await self._operators.widen(call, [plan.access, plan.premium], self._cast.secrets_of(plan))


def _status(user: User, status: str) -> dict[str, str]:
    return {"tenant_id": user.tenant.name, "status": status}


def _entitlement(user: User) -> str:
    return f"/v1/users/{user.name}/entitlement"
