"""What is done to files: the configuration is gone, certificates have expired."""

import datetime
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trustme

from gateway.embedded.server_process import HOST
from tests.faults.catalogue import fault
from tests.faults.permitted import permitted
from tests.faults.stage import Stage
from tests.fixtures.waiting import until

FIRST, OWN = 0, 2
LAST_YEAR: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
YEAR: Final = datetime.timedelta(days=365)


def _certificate(authority: trustme.CA, *, is_expired: bool) -> trustme.LeafCert:
    if is_expired:
        return authority.issue_cert(HOST, not_before=LAST_YEAR - YEAR, not_after=LAST_YEAR)
    return authority.issue_cert(HOST)


@fault(
    "configuration removed",
    peers="configuration gone",
    what="a node's file is deleted, and SIGHUP says to read it",
    nodes=frozenset({FIRST}),
)
async def configuration_removed(stage: Stage) -> AsyncIterator[None]:
    """It goes on by what it has read."""
    node = stage.nodes[FIRST].process
    text = node.config_path.read_text()
    node.config_path.unlink()
    said = node.log.count("configuration_refused")
    node.signal(signal.SIGHUP)
    await until(lambda: node.log.count("configuration_refused") > said, what="the file to be missed")
    try:
        yield
    finally:
        node.config_path.write_text(text)
        done = node.log.count("] reloaded")
        node.signal(signal.SIGHUP)
        await until(lambda: node.log.count("] reloaded") > done, seconds=20, what="the file to be read again")


class _Secure:
    """A node whose upstream speaks TLS."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    async def setting(self, stage: Stage) -> AsyncIterator[None]:
        """There it is."""
        trusted = stage.folder / "upstream-authority.pem"
        self._authority.cert_pem.write_to_path(trusted)
        await self.present(stage, is_expired=False)
        target = {"targets": [stage.orders.secure_url], "tls": {"ca": str(trusted)}}
        node = await stage.add_node({"upstreams": {"orders": target}})
        yield
        await stage.remove_node(node)
        await stage.orders.secure(None)

    async def present(self, stage: Stage, *, is_expired: bool) -> None:
        """From now on the upstream shows such a certificate; connections that stand end."""
        await stage.orders.secure(_context(_certificate(self._authority, is_expired=is_expired)))


def _context(leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


secure_upstream = _Secure()


@fault(
    "upstream's certificate expired",
    peers="upstream certificate",
    what="it was restarted with one that has ended",
    permits=permitted(known="200 | 502 upstream_error", cold="200 | 502 upstream_error"),
    setting=asynccontextmanager(secure_upstream.setting),
    nodes=frozenset({OWN}),
)
async def upstream_certificate(stage: Stage) -> AsyncIterator[None]:
    """It is not believed."""
    await secure_upstream.present(stage, is_expired=True)
    try:
        yield
    finally:
        await secure_upstream.present(stage, is_expired=False)


class _Listener:
    """A node that speaks TLS."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self._writes = 0

    async def setting(self, stage: Stage) -> AsyncIterator[None]:
        """There it is."""
        self.write(stage, is_expired=False)
        trusting = ssl.create_default_context()
        self._authority.configure_trust(trusting)
        cert, key = self._files(stage)
        node = await stage.add_node({"listen": {"tls": {"cert": str(cert), "key": str(key)}}}, tls=trusting)
        yield
        await stage.remove_node(node)

    async def present(self, stage: Stage, *, is_expired: bool) -> None:
        """Replace its certificate, and wait until it is followed."""
        node = stage.nodes[OWN].process
        done = node.log.count("certificate_reloaded")
        self.write(stage, is_expired=is_expired)
        await until(lambda: node.log.count("certificate_reloaded") > done, what="the certificate to be followed")

    def write(self, stage: Stage, *, is_expired: bool) -> None:
        """Write a new one to its files."""
        leaf = _certificate(self._authority, is_expired=is_expired)
        cert, key = self._files(stage)
        leaf.cert_chain_pems[0].write_to_path(cert)
        leaf.private_key_pem.write_to_path(key)
        self._writes += 1
        for path in (cert, key):  # file systems keep coarse times
            os.utime(path, ns=(0, path.stat().st_mtime_ns + self._writes * 1_000_000_000))

    def _files(self, stage: Stage) -> tuple[Path, Path]:
        return stage.folder / "listener.pem", stage.folder / "listener-key.pem"


listener = _Listener()


@fault(
    "listener's certificate expired",
    peers="listener certificate",
    what="new connections are shown one that has ended, and clients check it",
    permits=permitted(known="200 | unreachable", cold="200 | unreachable", bad="401 | unreachable", live="cut"),
    setting=asynccontextmanager(listener.setting),
    nodes=frozenset({OWN}),
)
async def listener_certificate(stage: Stage) -> AsyncIterator[None]:
    """Clients turn away; connections that stand go on."""
    await listener.present(stage, is_expired=True)
    try:
        yield
    finally:
        await listener.present(stage, is_expired=False)
