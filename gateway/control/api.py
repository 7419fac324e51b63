"""The management API put together. Each call is declared beside its handler (`calls`)."""

from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.auth.secrets import Peppers, SecretFormat
from gateway.clock import SystemClock
from gateway.consistency.confirmation import Propagator
from gateway.control.admin_tokens import AdminTokens
from gateway.control.audit import AuditCalls
from gateway.control.authorization import Bearers, Gate
from gateway.control.cache import CacheCalls
from gateway.control.call_rate import CallRate
from gateway.control.calls import Call
from gateway.control.containment import Containment, ContainmentCalls
from gateway.control.entitlements import EntitlementCalls
from gateway.control.explain import Explain, ExplainCalls
from gateway.control.github_keys import GithubKeys
from gateway.control.import_calls import ImportCalls
from gateway.control.imports import Imports
from gateway.control.issuance import Issuance
from gateway.control.key_calls import KeyCalls
from gateway.control.key_parts import KeyParts
from gateway.control.keys import Keys
from gateway.control.me import MyCalls, OwnKeys
from gateway.control.mutations import Mutations
from gateway.control.nodes import NodeCalls
from gateway.control.openapi import OpenApi
from gateway.control.people import People
from gateway.control.plans import PlanCalls
from gateway.control.portal.application import Portal
from gateway.control.problems import answer_errors, mark_reply
from gateway.control.replays import replaying
from gateway.control.retired_secrets import RetiredSecrets
from gateway.control.secret_scanning import SecretScanning, SecretScanningCalls
from gateway.control.signing_key_calls import SigningKeyCalls
from gateway.control.tenants import TenantCalls
from gateway.control.usage import UsageReader
from gateway.control.usage_calls import UsageCalls
from gateway.control.users import UserCalls
from gateway.control.verification import Verification, VerifyCalls
from gateway.settings import GithubSecretScanning, KeySettings
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
    bearers: Bearers | None = None,
    people: People | None = None,
    key_scopes: Sequence[str] = (),
    explain: Explain | None = None,
    github: GithubSecretScanning | None = None,
    portal: Portal | None = None,
) -> web.Application:
    """The application of the admin listener. It owns none of its parts: who gives them closes them.

    `bearers` knows whose token is whose: the admin tokens of the database, if nobody else does. Without `people` nobody
    signs in. `key_scopes` are what users may give to keys that they make themselves. `explain` tells decisions of this
    node; None where there is none to tell of. `github` takes reports of leaked keys. `portal` is mounted beside the
    API, whose gate is not the portal's.
    """
    mutations = Mutations(changes, propagator)
    parts = KeyParts(postgres, mutations, secret_format, peppers, keys, metrics)
    gate = Gate(bearers or AdminTokens(postgres), people)
    app = web.Application(client_max_size=BODY_LIMIT_BYTES)
    pages = None if portal is None else portal.mounted_on(app, lambda request: request.remote, takes_tokens=True)
    for middleware in (answer_errors, gate.middleware, replaying(postgres, mutations)):
        app.middlewares.append(middleware if pages is None else _but_for(pages, middleware))
    app.on_response_prepare.append(mark_reply)
    calls = (
        *_tenancy(postgres, mutations),
        *_keys(parts, key_scopes),
        *_oversight(postgres, revisions, secret_format),
        *(() if explain is None else ExplainCalls(explain).calls()),
        *(() if github is None else _secret_scanning(parts, github).calls()),
    )
    gate.guard(app.router, (*calls, *OpenApi(calls).calls()))
    return app


def _but_for(mounted: web.Application, middleware: Middleware) -> Middleware:
    """The middleware, where the request is not for what is mounted beside the API."""

    @web.middleware
    async def outside(request: web.Request, handler: Handler) -> web.StreamResponse:
        if mounted in request.match_info.apps:
            return await handler(request)
        return await middleware(request, handler)

    return outside


def _secret_scanning(parts: KeyParts, github: GithubSecretScanning) -> SecretScanningCalls:
    scanning = SecretScanning(parts, Containment(parts), github.action)
    return SecretScanningCalls(scanning, GithubKeys(github.public_keys_url, SystemClock.monotonic), parts)


def _tenancy(postgres: Postgres, mutations: Mutations) -> tuple[Call, ...]:
    return (
        *TenantCalls(postgres, mutations).calls(),
        *UserCalls(postgres, mutations).calls(),
        *EntitlementCalls(postgres, mutations).calls(),
        *PlanCalls(postgres, mutations).calls(),
    )


def _keys(parts: KeyParts, key_scopes: Sequence[str]) -> tuple[Call, ...]:
    issuance = Issuance(parts)
    verifying = VerifyCalls(Verification(parts), CallRate(parts.settings.verify_per_minute, SystemClock.monotonic))
    existing = Keys(parts, issuance)
    keys = KeyCalls(issuance, existing, RetiredSecrets(parts))
    mine = MyCalls(OwnKeys(parts, issuance, key_scopes))
    return (
        *keys.calls(),
        *verifying.calls(),
        *ContainmentCalls(Containment(parts)).calls(),
        *ImportCalls(Imports(parts)).calls(),
        *mine.calls(),
        *keys.personal_calls(),
        *CacheCalls(parts).calls(),
        *UsageCalls(UsageReader(parts.postgres), existing).calls(),
    )


def _oversight(postgres: Postgres, revisions: RevisionLog, secret_format: SecretFormat) -> tuple[Call, ...]:
    environment = secret_format.environment
    return (
        *NodeCalls(revisions, environment).calls(),
        *SigningKeyCalls(postgres, environment).calls(),
        *AuditCalls(postgres).calls(),
    )
