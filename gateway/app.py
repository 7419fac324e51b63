"""The composition root: the only place that names concrete classes.

`Gateway.prepare` opens from the stores up to the listeners, which `listen` opens; `close` goes back the same way, so
that whatever serves a request outlives it.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydantic import SecretStr

from gateway import __version__
from gateway.auth.admission import Admission
from gateway.auth.assertions import Asserter
from gateway.auth.credentials import CredentialReader
from gateway.auth.explanation import Hearings
from gateway.auth.last_used import LastUsed, ids_of
from gateway.auth.secrets import Peppers, SecretFormat
from gateway.auth.signing import Sealer
from gateway.auth.tokens import Signers, TokenVerifier
from gateway.clock import Clock, SystemClock
from gateway.consistency.confirmation import Propagator
from gateway.consistency.feed import Feed
from gateway.consistency.relay import Relay
from gateway.consistency.view import EVERYTHING, View
from gateway.control.admin_tokens import Administrator, Role
from gateway.control.api import build_api
from gateway.control.deeds import Origin
from gateway.control.explain import Explain
from gateway.control.idempotency import Purge
from gateway.control.key_parts import KeyParts, peppers_of, secret_format_of
from gateway.control.mutations import Mutations
from gateway.control.people import People
from gateway.control.portal.application import Portal
from gateway.control.portal.ready_lines import ReadyLines
from gateway.control.provider import ProviderKeys
from gateway.control.signing_keys import SignerKeeper, SigningKeys
from gateway.control.tokens import Mint
from gateway.errors import GatewayError, Outage, StoreUnavailable
from gateway.front import Front
from gateway.limit_parts import open_limits
from gateway.limits.metering import Meter
from gateway.listeners import LAST_MOMENT_SECONDS, LAST_REQUEST_SECONDS, Listeners, Places
from gateway.proxy.assembly import (
    explainer_of,
    identity_names,
)
from gateway.proxy.explanation import Question
from gateway.settings import Settings
from gateway.stores.postgres.changes import Changes
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.last_used import LastUsedStore
from gateway.stores.postgres.lookup import KeyLookup
from gateway.stores.postgres.migrate import check_schema
from gateway.stores.postgres.plans import PlanRow, declare
from gateway.stores.postgres.replicas import Replicas
from gateway.stores.postgres.revisions import RevisionLog
from gateway.stores.postgres.usage import UsageStore
from gateway.stores.redis.channel import Channel
from gateway.stores.redis.connection import Redis
from gateway.stores.redis.entries import RedisEntries
from gateway.stores.redis.seal import Seal
from gateway.telemetry.lines import Lines
from gateway.telemetry.metrics import Metrics
from gateway.watch_parts import open_watch

log = structlog.get_logger(__name__)

LOOKUP_CONNECTIONS: Final = 10
FEED_CONNECTIONS: Final = 2  # apart, so that a flood of lookups cannot starve the polls and age the view
RETRY_SECONDS: Final = 1.0  # between two looks at a database that is away at start
READY_POLL_SECONDS: Final = 0.05
LISTENING: Final = "listening"  # the one check that fails before it listens


@dataclass(frozen=True, slots=True)
class Truth:
    """The parts that speak to Postgres about keys and revisions."""

    revisions: RevisionLog
    changes: Changes
    lookup: KeyLookup


@dataclass(frozen=True, slots=True)
class Shared:
    """The parts that speak to Redis; none where none is configured."""

    seal: Seal | None = None
    channel: Channel | None = None
    entries: RedisEntries | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """The parts for access tokens; none where they are not configured."""

    sealer: Sealer
    signers: Signers
    verifier: TokenVerifier


@dataclass(frozen=True, slots=True)
class SigningIn:
    """The parts for users who sign in at a provider."""

    keys: ProviderKeys
    people: People


class Gateway:
    """One node, which listens at `places`, or else where the settings say. `lines` is where its log goes.

    `checks` say what it needs to be ready; there are none before it can tell. `failure` completes with the error that
    makes going on impossible after a successful start. `metrics` are its own, but where it is to take another's place.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        places: Places | None = None,
        lines: Lines | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._stack = contextlib.AsyncExitStack()
        self._is_prepared = False
        self._is_listening = False  # for callers
        self.node_id = f"node_{secrets.token_hex(8)}"  # a new one for every start
        self.failure: asyncio.Future[GatewayError] = asyncio.get_running_loop().create_future()
        self.metrics = metrics or Metrics()
        if lines is not None:
            self.metrics.log_lines_dropped.share(lines.dropped)
        self.checks: dict[str, Callable[[], bool]] = {}
        self.listeners = Listeners(self._stack)
        self._places = places or Places.configured(settings.listen)
        self.listeners.take(self._places.proxy)
        self.listeners.take(self._places.admin)
        self._front = Front(settings, self._clock, self.metrics, self.listeners, self._places.proxy, self._stack)

    async def start(self) -> None:
        """`prepare`, and `listen` at once. Raises what they raise."""
        await self.prepare()
        await self.listen()

    async def prepare(self) -> None:
        """Open everything but the listeners. Stores that are away do not make it fail: they are tried again.

        Raises SchemaOutdated and kin; what was opened by then is closed again.
        """
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def wait_until_well(self) -> None:
        """Return once all checks are well but that it listens. Raises what makes that impossible."""
        while not all(is_well() for name, is_well in self.checks.items() if name != LISTENING):
            if self.failure.done():
                raise self.failure.result()
            await asyncio.sleep(READY_POLL_SECONDS)

    async def listen(self) -> None:
        """Accept connections. Raises ListenerFailed, and all is closed again."""
        try:
            await self.listeners.open()
        except BaseException:
            await self.close()
            raise
        self._is_listening = True

    async def serve_until(self, stopping: asyncio.Event) -> None:
        """Return once `stopping` is set. Raises what makes going on impossible."""
        stopped = asyncio.ensure_future(stopping.wait())
        await asyncio.wait((stopped, self.failure), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self.failure.done():
            raise self.failure.result()
        log.info("stopping")

    async def close(self) -> None:
        """Stop accepting, finish what is under way, and close every part in reverse order."""
        await self._close(LAST_MOMENT_SECONDS)

    async def leave(self) -> None:
        """The same as another takes its place: streams and sockets go on until they end, or `hurry`, or their bound."""
        if self._front.server is not None:
            self._front.server.linger(self._settings.drain.replaced_seconds)
        await self._close(LAST_REQUEST_SECONDS)

    def hurry(self) -> None:
        """Turn what `leave` has begun into what `close` does."""
        if self._front.server is not None:
            self._front.server.hurry()

    def cut(self) -> None:
        """Have `leave` or `close` cut what is still under way."""
        if self._front.server is not None:
            self._front.server.cut()

    async def _close(self, last_seconds: float) -> None:
        self._is_listening = False
        await self.listeners.refuse(last_seconds)
        await self._stack.aclose()

    async def _open(self) -> None:
        settings, clock, metrics = self._settings, self._clock, self.metrics
        keys, cache = settings.keys, settings.cache

        postgres = await self._open_postgres(LOOKUP_CONNECTIONS)
        feed_postgres = await self._open_postgres(FEED_CONNECTIONS)
        await self._prepare(postgres)
        shared = await self._open_shared()
        changes = Changes(postgres, environment=settings.environment)
        truth = Truth(RevisionLog(feed_postgres), changes, KeyLookup(postgres))
        view = View(
            clock,
            bound_seconds=cache.bound_seconds,
            retention_seconds=2 * cache.ttl_seconds,
            is_push_enough=cache.without_postgres == "serve",
        )
        feed = Feed(
            view,
            truth.revisions,
            node_id=self.node_id,
            environment=settings.environment,
            version=__version__,
            clock=clock,
            metrics=metrics,
            channel=shared.channel,
            seal=shared.seal,
        )
        peppers = peppers_of(keys)
        tokens = self._tokens()
        admission = Admission(
            environment=settings.environment,
            peppers=peppers,
            names=identity_names(settings),
            view=view,
            refresh=feed.refresh,
            truth=truth.lookup,
            shared=shared.entries,
            clock=clock,
            metrics=metrics,
            local_entries=cache.local_entries,
            ttl_seconds=cache.ttl_seconds,
            negative_ttl_seconds=cache.negative_ttl_seconds,
            replicas=await self._open_replicas(),
            isolated_seconds=cache.serve_isolated_seconds,
            tokens=None if tokens is None else (tokens.verifier, truth.lookup),
        )
        self._stack.push_async_callback(admission.close)
        signers = Signers() if tokens is None else tokens.signers
        view.listen(on_invalidated=_evicting(admission, signers), on_reset=_forgetting(admission, signers))
        await feed.start()
        self._stack.push_async_callback(feed.close)
        propagator = await self._start_propagation(truth, shared, feed)

        checks: dict[str, Callable[[], bool]] = {
            "schema": lambda: self._is_prepared,
            "view": lambda: view.is_fresh,
            LISTENING: lambda: self._is_listening,
        }
        if tokens is not None:
            checks["signing_keys"] = lambda: tokens.signers.is_loaded
            await self._keep_signers(postgres, Mutations(truth.changes, propagator), tokens)
        secret_format = secret_format_of(keys, settings.environment)
        reader = CredentialReader(secret_format, accepts_tokens=tokens is not None)
        self.checks = checks
        signing_in = await self._open_people(postgres)
        explain = self._explaining(admission, reader, view, postgres, shared, tokens, peppers)
        portal = self._portal(postgres, truth, propagator, secret_format, peppers, signing_in, explain)
        api = build_api(
            postgres=postgres,
            changes=truth.changes,
            propagator=propagator,
            revisions=truth.revisions,
            secret_format=secret_format,
            peppers=peppers,
            keys=keys,
            metrics=metrics,
            people=None if signing_in is None else signing_in.people,
            key_scopes=() if settings.oidc is None else settings.oidc.key_scopes,
            explain=explain,
            github=settings.github_secret_scanning,
            portal=portal,
        )
        purge = Purge(postgres)
        await purge.start()
        self._stack.push_async_callback(purge.close)
        await self.listeners.serve(api, self._places.admin, finish_seconds=settings.drain.finish_seconds)
        last_used = LastUsed(LastUsedStore(postgres, ids_of), clock)
        await last_used.start()
        self._stack.push_async_callback(last_used.close)
        limiting = await open_limits(settings, view, clock, metrics, self._stack)
        meter = await self._open_meter(postgres, view)
        watch = open_watch(settings, self.node_id, clock, metrics, self._stack)
        self._stack.callback(metrics.hide)  # once nobody is served any more, and before what is told of is closed
        await self._front.serve(
            admission,
            reader,
            last_used,
            meter,
            self._mint(postgres, tokens),
            self._asserters(tokens, view),
            limiting,
            watch,
            portal,
        )

    # -- tokens

    def _tokens(self) -> Tokens | None:
        configured = self._settings.tokens
        if configured is None:
            return None
        signers = Signers()
        verifier = TokenVerifier(
            signers,
            issuer=configured.issuer,
            audience=configured.audience,
            environment=self._settings.environment,
            leeway_seconds=configured.leeway_seconds,
        )
        return Tokens(Sealer(configured.sealing_key.get_secret_value()), signers, verifier)

    async def _keep_signers(self, postgres: Postgres, mutations: Mutations, tokens: Tokens) -> None:
        configured = self._settings.tokens
        assert configured is not None
        signing_keys = SigningKeys(
            postgres,
            mutations,
            tokens.sealer,
            caller=Administrator(self.node_id, Role.OPERATOR, None, Origin("node", self.node_id, "gateway")),
            environment=self._settings.environment,
            rotate_after_seconds=configured.rotate_after_seconds,
        )
        keeper = SignerKeeper(signing_keys, tokens.signers)
        self._stack.push_async_callback(keeper.close)
        await keeper.start()

    def _mint(self, postgres: Postgres, tokens: Tokens | None) -> Mint | None:
        if tokens is None:
            return None
        configured = self._settings.tokens
        assert configured is not None
        return Mint(
            postgres,
            tokens.sealer,
            tokens.signers,
            configured,
            environment=self._settings.environment,
            key_id_header=self._settings.identity_headers.key_id,
            metrics=self.metrics,
        )

    def _asserters(self, tokens: Tokens | None, view: View) -> dict[str, Asserter]:
        """What signs for the upstreams that ask for it, by their names."""
        settings, configured = self._settings, self._settings.tokens
        if tokens is None or configured is None:
            return {}
        return {
            name: Asserter(
                tokens.signers,
                header=settings.identity_headers.assertion,
                issuer=configured.issuer,
                audience=name,
                environment=settings.environment,
                to_database=view.to_database,
            )
            for name, upstream in settings.upstreams.items()
            if upstream.assertion
        }

    async def _open_people(self, postgres: Postgres) -> SigningIn | None:
        """Whom a provider signs in; none where none is configured. It is not waited for."""
        configured = self._settings.oidc
        if configured is None:
            return None
        keys = ProviderKeys(configured, clock=self._clock, metrics=self.metrics)
        await keys.start()
        self._stack.push_async_callback(keys.close)
        return SigningIn(keys, People(postgres, keys, configured))

    def _portal(
        self,
        postgres: Postgres,
        truth: Truth,
        propagator: Propagator,
        secret_format: SecretFormat,
        peppers: Peppers,
        signing_in: SigningIn | None,
        explain: Explain,
    ) -> Portal | None:
        settings = self._settings
        if settings.portal is None or settings.oidc is None or signing_in is None:
            return None
        mutations = Mutations(truth.changes, propagator)
        parts = KeyParts(postgres, mutations, secret_format, peppers, settings.keys, self.metrics)
        lines = ReadyLines(settings.portal.api_url or _own_url(settings), settings.credentials)
        return Portal(
            parts,
            signing_in.people,
            signing_in.keys,
            settings.oidc,
            settings.portal,
            lines,
            self._clock,
            truth.revisions,
            explain,
        )

    async def _open_meter(self, postgres: Postgres, view: View) -> Meter:
        configured = self._settings.metering
        store = UsageStore(postgres, node_id=self.node_id, retention_months=configured.retention_months)
        meter = Meter(
            store,
            self._clock,
            self.metrics,
            interval_seconds=configured.interval_seconds,
            to_database=view.to_database,
        )
        await meter.start()
        self._stack.push_async_callback(meter.close)
        return meter

    # -- explaining

    def _explaining(
        self,
        admission: Admission,
        reader: CredentialReader,
        view: View,
        postgres: Postgres,
        shared: Shared,
        tokens: Tokens | None,
        peppers: Peppers,
    ) -> Explain:
        settings = self._settings
        hearings = Hearings(
            admission,
            view=view,
            truth=KeyLookup(postgres, is_replica=True),  # as on a replica, nothing is written
            shared=shared.entries,
            judge=None if tokens is None else tokens.verifier,
            names=identity_names(settings),
            environment=settings.environment,
            monotonic=self._clock.monotonic,
            candidates=peppers.candidates,
        )
        explainer = explainer_of(
            settings, hearings, reader, self._front.router, lambda: self._front.upstreams, self._clock
        )

        async def explain(asked: Mapping[str, Any]) -> dict[str, Any]:
            if not self._is_listening:
                raise Outage("the proxy does not listen yet")
            return await explainer.explain(Question(**asked))

        return explain

    # -- the stores

    async def _open_postgres(
        self, pool_size: int, dsn: SecretStr | None = None, replica: int | None = None
    ) -> Postgres:
        url = (dsn or self._settings.postgres.dsn).get_secret_value()
        postgres = Postgres(url, pool_size=pool_size, metrics=self.metrics, replica=replica)
        await postgres.open()
        self._stack.push_async_callback(postgres.close)
        return postgres

    async def _open_replicas(self) -> Replicas | None:
        dsns = self._settings.postgres.replicas
        lookups = [
            KeyLookup(await self._open_postgres(LOOKUP_CONNECTIONS, dsn, number), is_replica=True)
            for number, dsn in enumerate(dsns)
        ]
        return Replicas(lookups, monotonic=self._clock.monotonic) if lookups else None

    async def _prepare(self, postgres: Postgres) -> None:
        """Check the schema and declare the configured plans: now, or as soon as the database is there."""
        try:
            await self._prepare_now(postgres)
        except StoreUnavailable as error:
            log.warning("database_away_at_start", error=str(error))
            task = asyncio.create_task(self._prepare_later(postgres))
            self._stack.push_async_callback(_cancelled, task)

    async def _prepare_now(self, postgres: Postgres) -> None:
        await check_schema(postgres)
        plans = self._settings.plans.items()
        await declare(
            postgres, [PlanRow(name, plan.tier, dict(plan.features), dict(plan.limits)) for name, plan in plans]
        )
        self._is_prepared = True

    async def _prepare_later(self, postgres: Postgres) -> None:
        while not self._is_prepared:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await self._prepare_now(postgres)
            except StoreUnavailable:
                continue
            except GatewayError as error:
                self.failure.set_result(error)
                return

    async def _open_shared(self) -> Shared:
        settings, metrics = self._settings, self.metrics
        if settings.redis is None:
            return Shared()
        redis = Redis(settings.redis.url.get_secret_value(), environment=settings.environment, metrics=metrics)
        await redis.open()
        self._stack.push_async_callback(redis.close)
        seal, bound_seconds = Seal(), settings.cache.bound_seconds
        channel = Channel(
            redis, seal, writer=self.node_id, clock=self._clock, bound_seconds=bound_seconds, metrics=metrics
        )
        return Shared(seal, channel, RedisEntries(redis, seal, metrics=metrics))

    async def _start_propagation(self, truth: Truth, shared: Shared, feed: Feed) -> Propagator:
        bound_seconds = self._settings.cache.bound_seconds
        propagator = Propagator(
            truth.changes,
            truth.revisions,
            environment=self._settings.environment,
            bound_seconds=bound_seconds,
            clock=self._clock,
            metrics=self.metrics,
            feed=feed,
            channel=shared.channel,
            entries=shared.entries,
        )
        await propagator.start()
        self._stack.push_async_callback(propagator.close)
        relay = Relay(truth.changes, propagator, bound_seconds=bound_seconds, metrics=self.metrics)
        await relay.start()
        self._stack.push_async_callback(relay.close)
        return propagator


def _own_url(settings: Settings) -> str:
    """The public listener's URL, as somebody on this machine writes it."""
    address, scheme = settings.listen.proxy, "http" if settings.listen.tls is None else "https"
    return f"{scheme}://localhost:{address.port}" if address.host in ("0.0.0.0", "::") else f"{scheme}://{address}"  # noqa: S104


def _evicting(admission: Admission, signers: Signers) -> Callable[[list[str], int], None]:
    forget = _forgetting(admission, signers)

    def evict(subjects: list[str], revision: int) -> None:
        if EVERYTHING in subjects:
            forget()
        else:
            admission.evict(subjects)
            signers.heard(subjects)

    return evict


def _forgetting(admission: Admission, signers: Signers) -> Callable[[], None]:
    def forget() -> None:
        admission.forget_all()
        signers.doubt()

    return forget


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
