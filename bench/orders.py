"""What load generators are told: a JSON document on standard input, so that no secret stands in a command line."""

import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from bench.certificates import client_context

BEGUN = "begun\n"  # printed by who keeps a schedule, as the first request is due


def carry_out(generate: Callable[..., Coroutine[Any, Any, dict[str, float | None]]]) -> None:
    """Read an order, have `generate` carry it out, and print the figures.

    `requests` are texts; with an `authority`, a PEM file, the proxy is spoken to in TLS. The rest goes to `generate` as
    it is.
    """
    order = json.load(sys.stdin)
    authority = order.pop("authority")
    order["requests"] = [request.encode() for request in order["requests"]]
    context = client_context(authority) if authority else None
    print(json.dumps(uvloop.run(generate(**order, context=context))))
