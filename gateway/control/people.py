"""Users whom the OpenID provider has signed in: who they are, and what they may.

By an access token, the provider's word and the database's are both asked for every request, and neither is remembered:
a role or a group is what the token says that came with this request (R274). In a session of the portal it is what the
ID token has said at its beginning. A user who is deleted or suspended, or whose tenant is, is refused at once, whatever
the provider has said.
"""

from dataclasses import dataclass
from typing import Final

from gateway.auth.refusal import Reason
from gateway.auth.sign_in import Judge, Names, Statement
from gateway.control.admin_tokens import Administrator, Role
from gateway.control.bodies import ID_SHAPE
from gateway.control.deeds import Origin
from gateway.control.problems import Problem, TenantSuspended
from gateway.control.provider import ProviderKeys, ProviderUnavailable
from gateway.settings import OidcSettings
from gateway.stores.postgres import users as sql
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.users import UserRow

LOOKUP_SECONDS: Final = 3.0
NOBODY: Final = ""  # no user has this id


class SignInRefused(Problem):
    """The access token is none of the provider's for us, or not in time."""

    code: str = Reason.INVALID_TOKEN
    status = 401
    public = "This access token signs nobody in here."

    def __init__(self, why: str) -> None:
        super().__init__(why, headers={"WWW-Authenticate": 'Bearer realm="ostiary", error="invalid_token"'})


class SignInExpired(SignInRefused):
    """The access token was good."""

    code = Reason.TOKEN_EXPIRED
    public = "This access token has expired. Sign in again."


class UnknownUser(Problem):
    """The provider knows the user; the database does not, or not in that tenant. Mere sign-in makes no users."""

    code = "unknown_user"
    status = 403
    public = "You have signed in, but nobody has made you a user here. Ask your administrator."


class UserSuspended(Problem):
    """The user is suspended."""

    code = "user_suspended"
    status = 403
    public = "You are suspended here. Ask your administrator."


@dataclass(frozen=True, slots=True)
class Person:
    """A user who has signed in. `roles` and `groups` are the provider's; `admin_role` is what they give."""

    user: UserRow
    roles: frozenset[str]
    groups: frozenset[str]
    admin_role: Role | None

    @property
    def as_administrator(self) -> Administrator:
        """As caller of the management API, in the own tenant."""
        user = self.user
        origin = Origin("user", user.id, user.display_name)
        return Administrator(f"user:{user.id}", self.admin_role, user.tenant_id, origin)

    @property
    def as_owner(self) -> Administrator:
        """As caller of what is for every user: nothing but the own keys exists, whatever the role."""
        administrator = self.as_administrator
        return Administrator(
            administrator.token_id, None, administrator.tenant_id, administrator.origin, user_id=self.user.id
        )


class People:
    """Recognises who has signed in."""

    def __init__(self, postgres: Postgres, keys: ProviderKeys, settings: OidcSettings) -> None:
        self._postgres = postgres
        self._keys = keys
        claims, given = settings.claims, settings.admin_roles
        self._judge = Judge(
            issuer=settings.issuer,
            audience=settings.audience,
            algorithms=settings.algorithms,
            names=Names(claims.user_id, claims.tenant_id, claims.roles, claims.groups),
            leeway_seconds=settings.leeway_seconds,
        )
        self._role_gives = {name: Role(role) for name, role in given.roles.items()}
        self._group_gives = {name: Role(role) for name, role in given.groups.items()}

    async def recognise(self, token: str) -> Person:
        """Who has signed in by this access token, which has the shape of one.

        Raises SignInRefused, UnknownUser, UserSuspended, TenantSuspended; StoreUnavailable and ProviderUnavailable
        where it cannot be told.
        """
        return await self.whom(await self._verified(token))

    async def whom(self, said: Statement) -> Person:
        """Whom the provider speaks of, who it is that has signed this. Raises as `recognise` does.

        A session has no end of a token: it ends by its own, and its statement is in time for ever.
        """
        user_id = said.user_id if ID_SHAPE.fullmatch(said.user_id) else NOBODY
        found = await self._postgres.run(lambda c: sql.standing(c, user_id), seconds=LOOKUP_SECONDS, is_read=True)
        untimely = said.refusal(found.now)  # by the database's clock, as everything that ends
        if untimely is not None:
            raise (SignInExpired if untimely is Reason.TOKEN_EXPIRED else SignInRefused)(f"of {user_id!r}: {untimely}")
        user = found.user
        if user is None or said.tenant_id not in (None, user.tenant_id):
            raise UnknownUser(f"no user {user_id!r} in tenant {said.tenant_id!r}")
        if not found.is_tenant_active:
            raise TenantSuspended(f"tenant {user.tenant_id!r} of {user_id!r}")
        if user.status != "active":
            raise UserSuspended(f"user {user_id!r}")
        return Person(user, said.roles, said.groups, self._admin_role(said))

    async def _verified(self, token: str) -> Statement:
        head = self._judge.head_of(token)
        key = None if head is None else await self._keys.find(head)
        said = None if head is None or key is None else self._judge.read(token, head, key)
        if said is None:
            raise SignInRefused("none of the provider's for us")
        return said

    def _admin_role(self, said: Statement) -> Role | None:
        """The strongest of all that roles and groups give, now (R274). What an auditor may, a tenant-admin may."""
        given = {role for name, role in self._role_gives.items() if name in said.roles}
        given |= {role for name, role in self._group_gives.items() if name in said.groups}
        for role in (Role.TENANT_ADMIN, Role.AUDITOR):
            if role in given:
                return role
        return None


SIGN_IN_PROBLEMS: Final = (
    SignInRefused,
    SignInExpired,
    UnknownUser,
    UserSuspended,
    TenantSuspended,
    ProviderUnavailable,
)
