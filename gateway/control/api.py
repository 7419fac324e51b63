"""The management API put together. Each call is declared beside its handler (`calls`)."""

from collections.abc import Sequence

from aiohttp import web

from gateway.auth.secrets import Peppers, SecretFormat
from gateway.consistency.confirmation import Propagator
from gateway.control.admin_tokens import AdminTokens
from gateway.control.audit import AuditCalls
from gateway.control.authorization import Gate
from gateway.control.cache import CacheCalls
from gateway.control.calls import Call
from gateway.control.entitlements import EntitlementCalls
from gateway.control.explain import Explain, ExplainCalls
from gateway.control.issuance import Issuance
from gateway.control.key_calls import KeyCalls
from gateway.control.key_parts import KeyParts
from gateway.control.keys import Keys
from gateway.control.me import MyCalls
from gateway.control.mutations import Mutations
from gateway.control.nodes import NodeCalls
from gateway.control.openapi import OpenApi
from gateway.control.people import People
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
    people: People | None = None,
    key_scopes: Sequence[str] = (),
    explain: Explain | None = None,
) -> web.Application:
    """The application of the admin listener. It owns none of its parts: who gives them closes them.

    Without `people` nobody signs in. `key_scopes` are what users may give to keys that they make themselves. `explain`
    tells decisions of this node; None where there is none to tell of.
    """
    mutations = Mutations(changes, propagator)
    parts = KeyParts(postgres, mutations, secret_format, peppers, keys, metrics)
    gate = Gate(AdminTokens(postgres), people)
    app = web.Application(
        middlewares=[answer_errors, gate.middleware, replaying(postgres, mutations)], client_max_size=BODY_LIMIT_BYTES
    )
    app.on_response_prepare.append(mark_reply)
    calls = (
        *_tenancy(postgres, mutations),
        *_keys(parts, key_scopes),
        *_oversight(postgres, revisions, secret_format),
        *(() if explain is None else ExplainCalls(explain).calls()),
    )
    for call in (*calls, *OpenApi(calls).calls()):
        gate.guard(app.router, call)
    return app


def _tenancy(postgres: Postgres, mutations: Mutations) -> tuple[Call, ...]:
    return (
        *TenantCalls(postgres, mutations).calls(),
        *UserCalls(postgres, mutations).calls(),
        *EntitlementCalls(postgres, mutations).calls(),
        *PlanCalls(postgres, mutations).calls(),
    )


def _keys(parts: KeyParts, key_scopes: Sequence[str]) -> tuple[Call, ...]:
    issuance = Issuance(parts)
    keys = KeyCalls(issuance, Keys(parts, issuance), RetiredSecrets(parts))
    mine = MyCalls(parts.postgres, issuance, key_scopes)
    return (*keys.calls(), *mine.calls(), *keys.personal_calls(), *CacheCalls(parts).calls())


def _oversight(postgres: Postgres, revisions: RevisionLog, secret_format: SecretFormat) -> tuple[Call, ...]:
    return (*NodeCalls(revisions, secret_format.environment).calls(), *AuditCalls(postgres).calls())
