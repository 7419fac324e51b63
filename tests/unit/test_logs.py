"""Log lines: one per event, without controls, without secrets, without the values of variables."""

import io

import pytest
import structlog

from gateway.auth.secrets import SecretFormat
from gateway.control import admin_tokens
from gateway.control.ids import new_id
from gateway.telemetry.logs import escaped, masked, write_logs


@pytest.mark.threat("secrets in logs")
@pytest.mark.parametrize("text", ["a\nb", "a\r\n2026 [error] forged", "\x1b[2J", "a\x00b", "a\u2028b", "\x7f"])
def test_no_value_begins_a_line(text: str) -> None:
    """What a client sends cannot forge a line or reach a terminal. R325."""
    shown = escaped(None, "info", {"event": "it happened", "reason": text})["reason"]
    assert shown.isprintable()
    assert shown != text


@pytest.mark.parametrize("text", ["plain", "größe 日本", "a=b 'c' \"d\"", ""])
def test_an_ordinary_value_stays_as_it_is(text: str) -> None:
    """Only what is not printable is written otherwise. R325."""
    assert escaped(None, "info", {"event": text})["event"] == text


@pytest.mark.threat("secrets in logs")
@pytest.mark.parametrize("environment", ["test", "a", "prod-eu-1"])
def test_what_looks_like_a_key_is_masked(environment: str) -> None:
    """The display prefix stays, so that a key can be found by it; the rest goes. R324."""
    keys = SecretFormat("ost", environment)
    for secret in (keys.generate(), admin_tokens.generate()):
        shown = masked(None, "info", {"event": f"no key '{secret}' in sight"})["event"]
        head, _, tail = secret.rpartition("_")
        assert shown == f"no key '{head}_{tail[:6]}***' in sight"


def test_ids_are_no_secrets() -> None:
    """What names a key, a node or a request can be read. R324."""
    text = f"{new_id('key')} node_0123456789abcdef a6652bb13a64389d55889b24193ec429"
    assert masked(None, "info", {"event": text})["event"] == text


@pytest.mark.threat("secrets in logs")
def test_a_traceback_shows_no_values() -> None:
    """Variables hold requests with their keys, and addresses with passwords. R324."""
    configured = structlog.get_config()
    file = io.StringIO()
    write_logs(file)
    try:
        break_down("-".join(("the", "password")))
    except ValueError:
        structlog.get_logger().exception("broken")
    finally:
        structlog.configure(**configured)
    assert "in break_down" in file.getvalue()
    assert "the-password" not in file.getvalue()


def break_down(value: str) -> None:
    """Fail with a secret in a variable."""
    raise ValueError(len(value))
