"""What is told of a request that has ended: nothing in it is as long as a key."""

import pytest

from gateway.auth.secrets import SecretFormat
from gateway.proxy.tally import Outcome
from gateway.proxy.watch import SHORTEST_SECRET, Ended
from gateway.telemetry.logs import SECRET


def ended(request_id: str) -> Ended:
    """A request that brought this id."""
    return Ended(None, request_id.encode(), "127.0.0.1", "orders", 200, Outcome.FORWARDED, "", 0.001)


@pytest.mark.threat("secrets in logs")
def test_the_shortest_secret_is_masked() -> None:
    """Whatever the pattern takes is not passed over for its length. R324."""
    for more in range(3):
        secret = "a_" + "B" * (SHORTEST_SECRET - 2 + more)
        assert SECRET.fullmatch(secret)
        assert ended(secret).name == "a_BBBBBB***"
    assert SECRET.fullmatch("a_" + "B" * (SHORTEST_SECRET - 3)) is None


@pytest.mark.threat("secrets in logs")
def test_a_key_as_a_request_id_is_masked() -> None:
    """Somebody will put it there. R324."""
    secret = SecretFormat("ost", "test").generate()
    assert ended(f"x-{secret}").name.endswith("***")
    assert secret[20:] not in ended(f"x-{secret}").name
