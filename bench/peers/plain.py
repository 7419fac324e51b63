"""The measures of the others: no proxy, the bare tunnel, and what one writes in Python oneself."""

import sys
from importlib import metadata

from bench.peers.peer import PLAIN, SECRET, Running, Shape, keys_file
from bench.processes import Workshop, free_port


class Direct:
    """No proxy: what the load generator and the upstream can do by themselves."""

    name = "no proxy"

    def version(self) -> str | None:
        """Always there."""
        return "-"

    def can(self, shape: Shape) -> bool:
        """The upstream knows neither TLS nor routes."""
        return shape == PLAIN

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        """Name the upstream itself."""
        return Running(upstream_port, None, SECRET, is_authenticating=False)


def _tls_arguments(shape: Shape) -> list[str]:
    if shape.certificate is None:
        return []
    return ["--tls", str(shape.certificate.chain), str(shape.certificate.key)]


class Tunnel:
    """The floor: bytes both ways on uvloop, unread."""

    name = "bare uvloop tunnel"

    def version(self) -> str | None:
        """Return uvloop's version."""
        return f"uvloop {metadata.version('uvloop')}"

    def can(self, shape: Shape) -> bool:
        """It reads no paths."""
        return not shape.prefixes

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        """Start `bench.tunnel`."""
        command = [sys.executable, "-m", "bench.tunnel", str(upstream_port), *_tls_arguments(shape)]
        process = workshop.start("tunnel", command, core=core)
        return Running(process.printed_port(), process, SECRET, is_authenticating=False)


class AiohttpProxy:
    """`bench.aiohttp_proxy`: a page of Python on aiohttp and uvloop."""

    name = "aiohttp proxy"

    def version(self) -> str | None:
        """Return aiohttp's version."""
        return f"aiohttp {metadata.version('aiohttp')}"

    def can(self, shape: Shape) -> bool:
        """Whatever it is."""
        return True

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        """Start one process."""
        port = free_port()
        command = [sys.executable, "-m", "bench.aiohttp_proxy", str(port), str(upstream_port), str(keys_file(workshop))]
        if shape.prefixes:
            command += ["--prefixes", *shape.prefixes]
        process = workshop.start("aiohttp proxy", command + _tls_arguments(shape), core=core)
        process.wait_for_port(port)
        return Running(port, process, SECRET)
