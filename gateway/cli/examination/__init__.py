"""What an operator would look at when it does not work: each thing once, with what to do next.

finding.py       what a look at one thing came to
stores.py        PostgreSQL: there, writable, of this schema, at the same time; signing keys, nodes; Redis
network.py       listeners and who has their ports, upstreams, the provider where users sign in
machine.py       certificates on file, trusted proxies, open files

Nothing is changed by it. Looks that wait do so at once, so that all of them take as long as the slowest.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from pathlib import Path

from gateway.cli.examination.finding import Finding, Status
from gateway.cli.examination.machine import certificate_findings, file_findings, proxy_findings
from gateway.cli.examination.network import listener_findings, provider_findings, upstream_findings
from gateway.cli.examination.stores import postgres_findings, redis_findings
from gateway.cli.output import number_of
from gateway.configuration import ConfigurationError, load

__all__ = ["Finding", "Status", "examined"]

CONFIGURATION = "configuration"
EMBEDDED = ("postgres", "operator.token")  # what `ostiary up` leaves beside its configuration


def examined(config: Path) -> list[Finding]:
    """All that is found. Where the configuration cannot be used, its mistakes alone."""
    try:
        settings = load(config)
    except ConfigurationError as error:
        lines = [str(one) if one.line is None else f"line {one.line}: {one}" for one in error.mistakes]
        return [
            Finding.failed(CONFIGURATION, line, "Correct it; `ostiary check FILE` tells the same.") for line in lines
        ]
    routes, upstreams = number_of(len(settings.routes), "route"), number_of(len(settings.upstreams), "upstream")
    found = [Finding.ok(CONFIGURATION, f"{routes}, {upstreams}")]
    is_embedded = all((config.parent / name).exists() for name in EMBEDDED)
    where = (
        "PostgreSQL and Redis of `ostiary up`, which run as long as it does" if is_embedded else "servers of their own"
    )
    found.append(Finding.ok("stores", where))

    async def look() -> list[list[Finding]]:
        looks: Iterable[Awaitable[list[Finding]]] = (
            postgres_findings(settings, is_embedded=is_embedded),
            redis_findings(settings, is_embedded=is_embedded),
            listener_findings(settings),
            upstream_findings(settings),
            provider_findings(settings),
        )
        return await asyncio.gather(*looks)

    for one in asyncio.run(look()):
        found += one
    return [*found, *certificate_findings(settings), *proxy_findings(settings), *file_findings(settings)]
