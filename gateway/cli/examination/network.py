"""Listeners and who has their ports, upstreams, and the provider where users sign in."""

import asyncio
import errno
import os
import socket
import ssl
import time
from ipaddress import ip_address
from typing import Final

import aiohttp

from gateway.cli.examination.finding import Finding
from gateway.cli.examination.machine import expiry_finding
from gateway.cli.examination.ports import owner_of
from gateway.proxy.assembly import CertificateUnusable, upstream_tls
from gateway.settings import Address, Settings, Target

LOOK_SECONDS: Final = 5.0


# -- listeners


async def listener_findings(settings: Settings) -> list[Finding]:
    """Whether each listener can be opened, or is open already: by a gateway, or by something else."""
    listen = settings.listen
    places = (("proxy", listen.proxy), ("admin", listen.admin), ("status", listen.status))
    found = [_listener(name, address) for name, address in places]
    if not _is_loopback(listen.admin):
        cure = "Keep it off the public network: listen at 127.0.0.1, or where operators alone are."
        found.append(Finding.warning("listen.admin.exposure", f"the management API is at {listen.admin}", cure))
    return found


def _listener(name: str, address: Address) -> Finding:
    check = f"listen.{name}"
    if address.port == 0:
        return Finding.ok(check, "any free port")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        return Finding.failed(check, f"{address}: {error.strerror}", f"Correct the host of `listen.{name}`.")
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listeners do
        try:
            probe.bind(place)
            probe.listen(1)
        except OSError as error:
            return _taken(check, name, address, error)
    return Finding.ok(check, f"{address} is free")


def _taken(check: str, name: str, address: Address, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        owner = owner_of(address.port)
        if owner is not None and owner.is_gateway:
            return Finding.ok(check, f"{address} is served by a gateway (pid {owner.pid})")
        who = "another program" if owner is None else f"{owner.name} (pid {owner.pid})"
        return Finding.failed(check, f"{address} is taken by {who}", f"Stop it, or choose another `listen.{name}`.")
    cures = {
        errno.EACCES: "Ports below 1024 need a capability (CAP_NET_BIND_SERVICE), or choose a higher one.",
        errno.EADDRNOTAVAIL: "This machine does not have that address: use one of its own, or 0.0.0.0.",
    }
    cure = cures.get(error.errno or 0, f"Choose another `listen.{name}`.")
    return Finding.failed(check, f"{address} cannot be listened at ({error.strerror})", cure)


def _is_loopback(address: Address) -> bool:
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


# -- upstreams


async def upstream_findings(settings: Settings) -> list[Finding]:
    """Every target of every upstream: its name, a connection, and TLS where it has it."""
    looks = []
    found: list[Finding] = []
    for name, upstream in settings.upstreams.items():
        try:
            tls = upstream_tls(name, upstream)
        except CertificateUnusable as error:
            found.append(Finding.failed(f"upstream.{name}.tls", str(error), "Name PEM files that can be read."))
            continue
        seconds = min(LOOK_SECONDS, upstream.timeouts.connect)
        looks += [
            _target(name, target, tls if target.scheme == "https" else None, seconds) for target in upstream.targets
        ]
    for one in await asyncio.gather(*looks):
        found += one
    return found


async def _target(name: str, target: Target, tls: ssl.SSLContext | None, seconds: float) -> list[Finding]:
    check = f"upstream.{name}"
    try:
        await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo(target.host, target.port), LOOK_SECONDS)
    except (OSError, TimeoutError) as error:
        why = getattr(error, "strerror", None) or "no answer"
        cure = f"Correct the host in `upstreams.{name}.targets`, or its name service."
        return [Finding.failed(check, f"{target}: no address for {target.host} ({why})", cure)]
    began = time.monotonic()
    accepted = False
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(target.host, target.port)
        accepted = True
        if tls is not None:
            async with asyncio.timeout(seconds):
                await writer.start_tls(tls, server_hostname=target.host)
    except ssl.SSLCertVerificationError as error:
        cure = f"Renew its certificate, or name who has signed it in `upstreams.{name}.tls.ca`."
        return [Finding.failed(check, f"{target}: its certificate is not believed ({error.verify_message})", cure)]
    except ssl.SSLError as error:
        return [Finding.failed(check, f"{target}: no TLS ({error.reason})", "Write http:// if it speaks no TLS.")]
    except TimeoutError:
        if accepted:
            return [Finding.failed(check, f"{target}: accepts, and speaks no TLS", "Write http:// if it has none.")]
        cure = "Look at the server and at firewalls between, or raise `timeouts.connect`."
        return [Finding.failed(check, f"{target}: does not accept within {seconds:g} s", cure)]
    except OSError as error:
        cure = f"Start it, or correct `upstreams.{name}.targets`."
        return [Finding.failed(check, f"{target}: {_reason(error)}", cure)]
    took = time.monotonic() - began
    certificate = writer.get_extra_info("ssl_object")
    der = None if certificate is None else certificate.getpeercert(binary_form=True)
    writer.transport.abort()
    found = [Finding.ok(check, f"{target} accepts, after {took * 1000:.0f} ms")]
    if der:
        found += expiry_finding(f"{check}.certificate", der, str(target))
    return found


def _reason(error: OSError) -> str:
    """What the system says; asyncio puts words of its own around it."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


# -- users who sign in


async def provider_findings(settings: Settings) -> list[Finding]:
    """Whether the provider's keys can be read."""
    oidc = settings.oidc
    if oidc is None:
        return []
    url = oidc.jwks_url or f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration"
    timeout = aiohttp.ClientTimeout(total=LOOK_SECONDS)
    cure = "Correct `oidc.issuer` or `oidc.jwks_url`. Users cannot sign in meanwhile; keys are not affected."
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            status = response.status
    except (aiohttp.ClientError, TimeoutError) as error:
        return [Finding.failed("oidc", f"{url} does not answer ({type(error).__name__})", cure)]
    if status != 200:
        return [Finding.failed("oidc", f"{url} answers {status}", cure)]
    return [Finding.ok("oidc", f"{url} answers")]
