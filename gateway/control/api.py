"""The management API: its calls, and who may make them. The whole of it stands in one table."""

from aiohttp import web

from gateway.auth.secrets import Peppers, SecretFormat
from gateway.consistency.confirmation import Propagator
from gateway.control.admin_tokens import AdminTokens
from gateway.control.audit import AuditCalls
from gateway.control.authorization import ADMINISTRATORS, EVERYBODY, OPERATORS, READERS_OF_ALL, Call, Gate
from gateway.control.cache import CacheCalls
from gateway.control.entitlements import EntitlementCalls
from gateway.control.issuance import Issuance
from gateway.control.key_calls import KeyCalls
from gateway.control.key_parts import KeyParts
from gateway.control.keys import Keys
from gateway.control.mutations import Mutations
from gateway.control.nodes import NodeCalls
from gateway.control.plans import PlanCalls
from gateway.control.problems import answer_errors, mark_reply
from gateway.control.replays import replaying
from gateway.control.retired_secrets import RetiredSecrets
from gateway.control.tenants import TenantCalls
from gateway.control.users import UserCalls
from gateway.settings import KeySettings
from gateway.stores.postgres.changes import Changes
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.revisions import RevisionLog
from gateway.telemetry.metrics import Metrics

BODY_LIMIT_BYTES = 64 * 1024


def build_api(
    *,
    postgres: Postgres,
    changes: Changes,
    propagator: Propagator,
    revisions: RevisionLog,
    secret_format: SecretFormat,
    peppers: Peppers,
    keys: KeySettings,
    metrics: Metrics,
) -> web.Application:
    """The application of the admin listener. It owns none of its parts: who gives them closes them."""
    mutations = Mutations(changes, propagator)
    parts = KeyParts(postgres, mutations, secret_format, peppers, keys, metrics)
    gate = Gate(AdminTokens(postgres))
    app = web.Application(
        middlewares=[answer_errors, gate.middleware, replaying(postgres, mutations)], client_max_size=BODY_LIMIT_BYTES
    )
    app.on_response_prepare.append(mark_reply)
    cache, audit = CacheCalls(parts), AuditCalls(postgres)
    for call in (
        *_tenancy(postgres, mutations),
        *_keys(parts),
        Call("GET", "/v1/nodes", NodeCalls(revisions, secret_format.environment).list, READERS_OF_ALL),
        Call("POST", "/v1/cache/invalidate", cache.invalidate, ADMINISTRATORS),
        Call("GET", "/v1/audit", audit.list, EVERYBODY),
        Call("GET", "/v1/audit/export", audit.export, EVERYBODY),
        Call("GET", "/v1/audit/verify", audit.verify, READERS_OF_ALL),
    ):
        gate.guard(app.router, call)
    gate.leave_open(app.router, "OPTIONS", "/v1/cache/invalidate", cache.options)
    return app


def _tenancy(postgres: Postgres, mutations: Mutations) -> tuple[Call, ...]:
    tenants, users = TenantCalls(postgres, mutations), UserCalls(postgres, mutations)
    entitlements, plans = EntitlementCalls(postgres, mutations), PlanCalls(postgres, mutations)
    return (
        Call("POST", "/v1/tenants", tenants.create, OPERATORS),
        Call("GET", "/v1/tenants", tenants.list, EVERYBODY),
        Call("GET", "/v1/tenants/{id}", tenants.show, EVERYBODY),
        Call("PATCH", "/v1/tenants/{id}", tenants.change, OPERATORS),
        Call("DELETE", "/v1/tenants/{id}", tenants.delete, OPERATORS),
        Call("GET", "/v1/users", users.list, EVERYBODY),
        Call("GET", "/v1/users/{id}", users.show, EVERYBODY),
        Call("PUT", "/v1/users/{id}", users.put, ADMINISTRATORS),
        Call("DELETE", "/v1/users/{id}", users.delete, ADMINISTRATORS),
        Call("GET", "/v1/users/{id}/entitlement", entitlements.show, EVERYBODY),
        Call("PUT", "/v1/users/{id}/entitlement", entitlements.put, OPERATORS),
        Call("DELETE", "/v1/users/{id}/entitlement", entitlements.delete, OPERATORS),
        Call("GET", "/v1/plans", plans.list, EVERYBODY),
        Call("GET", "/v1/plans/{name}", plans.show, EVERYBODY),
        Call("PUT", "/v1/plans/{name}", plans.put, OPERATORS),
        Call("DELETE", "/v1/plans/{name}", plans.delete, OPERATORS),
    )


def _keys(parts: KeyParts) -> tuple[Call, ...]:
    issuance = Issuance(parts)
    keys = KeyCalls(issuance, Keys(parts, issuance), RetiredSecrets(parts))
    return (
        Call("POST", "/v1/keys", keys.create, ADMINISTRATORS),
        Call("GET", "/v1/keys", keys.list, EVERYBODY),
        Call("GET", "/v1/keys/{id}", keys.show, EVERYBODY),
        Call("PATCH", "/v1/keys/{id}", keys.change, ADMINISTRATORS),
        Call("POST", "/v1/keys/{id}/rotate", keys.rotate, ADMINISTRATORS),
        Call("POST", "/v1/keys/{id}/revoke", keys.revoke, ADMINISTRATORS),
        Call("GET", "/v1/keys/{id}/retired-secrets", keys.list_retired, EVERYBODY),
        Call("PATCH", "/v1/retired-secrets/{id}", keys.set_window, ADMINISTRATORS),
    )
