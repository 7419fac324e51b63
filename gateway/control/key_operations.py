"""The metric of what is done to keys, by what came of it. Both label sets are closed."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from gateway.consistency.confirmation import RevocationPending
from gateway.errors import Fault, GatewayError, Outage
from gateway.telemetry.metrics import Metrics


class Operation(StrEnum):
    """The label `operation`."""

    CREATE = "create"
    UPDATE = "update"
    ROTATE = "rotate"
    REVOKE = "revoke"
    SET_WINDOW = "set_window"
    INVALIDATE = "invalidate"
    CONTAIN = "contain"
    VERIFY = "verify"
    IMPORT = "import"


class Result(StrEnum):
    """The label `result`."""

    OK = "ok"
    REFUSED = "refused"
    PENDING = "pending"
    OUTAGE = "outage"
    ERROR = "error"


@contextmanager
def counted(metrics: Metrics, operation: Operation) -> Iterator[None]:
    """Count the block as one `operation`, exactly once, by how it ends."""
    result = Result.ERROR
    try:
        yield
        result = Result.OK
    except RevocationPending:
        result = Result.PENDING
        raise
    except Outage:
        result = Result.OUTAGE
        raise
    except GatewayError as error:
        result = Result.REFUSED if error.fault is Fault.CLIENT else Result.ERROR
        raise
    finally:
        metrics.key_operations.labels(operation, result).inc()
