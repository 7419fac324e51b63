"""The composition root: the only place that names concrete classes.

`Gateway.prepare` opens from the stores up to the listeners, which `listen` opens; `close` goes back the same way, so
that whatever serves a request outlives it.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from gateway import __version__
from gateway.auth.admission import Admission
from gateway.auth.credentials import CredentialReader
from gateway.auth.explanation import Hearings
from gateway.auth.last_used import LastUsed, ids_of
from gateway.auth.secrets import Peppers
from gateway.auth.tokens import Signers
from gateway.clock import Clock, SystemClock
from gateway.consistency.feed import Feed
from gateway.consistency.view import EVERYTHING, View
from gateway.control.api import build_api
from gateway.control.explain import Explain
from gateway.control.key_parts import KeyParts, peppers_of, secret_format_of
from gateway.control.mutations import Mutations
from gateway.control.purge import Purge
from gateway.errors import GatewayError, Outage
from gateway.front import Front
from gateway.limit_parts import open_limits
from gateway.limits.metering import Meter
from gateway.listeners import LAST_MOMENT_SECONDS, LAST_REQUEST_SECONDS, Listeners, Places
from gateway.people_parts import open_people, portal_of
from gateway.proxy.assembly import explainer_of, identity_names
from gateway.proxy.explanation import Question
from gateway.settings import Settings
from gateway.store_parts import FEED_CONNECTIONS, LOOKUP_CONNECTIONS, Preparation, Shared, Stores, Truth
from gateway.stores.postgres.changes import Changes
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.last_used import LastUsedStore
from gateway.stores.postgres.lookup import KeyLookup
from gateway.stores.postgres.revisions import RevisionLog
from gateway.stores.postgres.usage import UsageStore
from gateway.telemetry.lines import Lines
from gateway.telemetry.metrics import Metrics
from gateway.token_parts import Tokens
from gateway.watch_parts import open_watch

log = structlog.get_logger(__name__)

READY_POLL_SECONDS: Final = 0.05
LISTENING: Final = "listening"  # the one check that fails before it listens


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

        stores = Stores(settings, self.node_id, clock, metrics, self._stack)
        postgres = await stores.open_postgres(LOOKUP_CONNECTIONS)
        feed_postgres = await stores.open_postgres(FEED_CONNECTIONS)
        preparation = Preparation(settings, postgres, self.failure)
        self._stack.push_async_callback(preparation.close)
        await preparation.start()
        shared = await stores.open_shared()
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
        tokens = Tokens.configured(settings)
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
            replicas=await stores.open_replicas(),
            isolated_seconds=cache.serve_isolated_seconds,
            tokens=None if tokens is None else (tokens.verifier, truth.lookup),
        )
        self._stack.push_async_callback(admission.close)
        signers = Signers() if tokens is None else tokens.signers
        view.listen(on_invalidated=_evicting(admission, signers), on_reset=_forgetting(admission, signers))
        await feed.start()
        self._stack.push_async_callback(feed.close)
        propagator = await stores.start_propagation(truth, shared, feed)
        mutations = Mutations(changes, propagator)

        checks: dict[str, Callable[[], bool]] = {
            "schema": lambda: preparation.is_done,
            "view": lambda: view.is_fresh,
            LISTENING: lambda: self._is_listening,
        }
        if tokens is not None:
            checks["signing_keys"] = lambda: tokens.signers.is_loaded
            await tokens.keep(postgres, mutations, self.node_id, self._stack)
        secret_format = secret_format_of(keys, settings.environment)
        reader = CredentialReader(secret_format, accepts_tokens=tokens is not None)
        self.checks = checks
        signing_in = await open_people(settings, postgres, clock, metrics, self._stack)
        explain = self._explaining(admission, reader, view, postgres, shared, tokens, peppers)
        parts = KeyParts(postgres, mutations, secret_format, peppers, keys, metrics)
        portal = portal_of(settings, parts, signing_in, clock, truth.revisions, explain)
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
            None if tokens is None else tokens.mint(postgres, metrics),
            {} if tokens is None else tokens.asserters(view.to_database),
            limiting,
            watch,
            portal,
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
