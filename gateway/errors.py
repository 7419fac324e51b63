"""One root of all errors, and whose fault each is.

`str(error)` is for the log and may name hosts; only `public` ever reaches a client.
"""

from collections.abc import Mapping
from enum import StrEnum


class Fault(StrEnum):
    """Who has to act for the error to go away."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class GatewayError(Exception):
    """The root: an error that knows its reply.

    A subclass fixes `code` (the public problem code), `status` (HTTP) and `fault`; `public` is the sentence that a
    client may read. The constructor's argument is for the log alone.
    """

    code = "internal_error"
    status = 500
    fault = Fault.GATEWAY
    public = "The gateway failed to handle this request."
    retry_after_seconds: int | None = None
    details: Mapping[str, object] | None = None  # more members of the problem


class Outage(GatewayError):
    """A dependency cannot tell now. Never a verdict on the caller: it becomes a 503 with Retry-After."""

    code = "auth_unavailable"
    status = 503
    public = "The gateway cannot verify API keys right now. Try again shortly."
    retry_after_seconds = 2


class StoreUnavailable(Outage):
    """Postgres or Redis did not answer in time, or answered with an error. The message says which, and why."""


class LimitsUnavailable(Outage):
    """The shared budget cannot be asked, and the rule says that nobody passes then."""

    code = "limits_unavailable"
    public = "The gateway cannot tell right now how much of this limit is left. Try again shortly."


class MalformedRow(StoreUnavailable):
    """A row that is not of the expected shape: nobody can tell what it means, and the store is well otherwise."""


class UnreadableEntitlement(MalformedRow):
    """The key is readable, and what its owner is entitled to is not: neither free nor lapsed, but unknown (R328)."""

    code = "entitlement_unavailable"
    public = "The gateway cannot tell right now what the owner of this key is entitled to. Try again shortly."
