"""`POST /v1/secret-scanning/github`: signed reports of leaked keys, and what is done about them."""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.auth.secrets import SecretFormat
from gateway.settings import GithubSecretScanning
from tests.fixtures.github import KEY_HEADER, KEY_ID, SIGNATURE_HEADER, Github, github_running, signed
from tests.integration.management.world import Management, Reply, give_tenant_token, give_tokens, management_over

PATH = "/v1/secret-scanning/github"
URL = "https://github.com/octocat/Hello-World/blob/main/settings.py"
STRANGE = SecretFormat("ost", "test").generate()
KEPT = (
    "SELECT (SELECT json_agg(k)::text FROM api_keys k) || (SELECT id FROM audit_head) || (SELECT value FROM revision)"
)


@pytest.fixture
async def github() -> AsyncIterator[Github]:
    async with github_running() as github:
        yield github


@pytest.fixture
async def management(postgres_dsn: str, github: Github) -> AsyncIterator[Management]:
    """The API with secret scanning that revokes."""
    async with management_over(postgres_dsn, github=GithubSecretScanning(public_keys_url=github.url)) as world:
        await give_tokens(world)
        await world.plant()
        await give_tenant_token(world, "acme")
        yield world


def report(token: str, **more: Any) -> dict[str, Any]:
    return {"token": token, "type": "ostiary_key", "url": URL, "source": "content", **more}


async def reported(management: Management, github: Github, *reports: Any) -> Reply:
    raw = json.dumps(list(reports)).encode()
    return await management.call("POST", PATH, raw=raw, token=None, headers=signed(github.key, raw))


def labels(reply: Reply) -> list[Any]:
    assert reply.status == 200, reply.text
    found: Any = reply.body
    return [one["label"] for one in found]


async def test_a_leaked_key_is_contained(management: Management, github: Github) -> None:
    """Revoked by whichever of its secrets was found; GitHub is told which tokens were real. R221, R314."""
    key, retired, spared = await management.key(), await management.key("b", user="olga"), await management.key("c")
    await management.expect(200, "POST", f"/v1/keys/{retired['id']}/rotate", {})
    reply = await reported(
        management,
        github,
        report(key["secret"]),
        report(STRANGE),
        report(retired["secret"]),
        report("not a key \u00e9"),
    )
    assert labels(reply) == ["true_positive", "false_positive", "true_positive", "false_positive"]
    answer: Any = reply.body
    assert answer[0] == {
        "token_hash": hashlib.sha256(key["secret"].encode()).hexdigest(),
        "token_type": "ostiary_key",
        "label": "true_positive",
    }
    states = [
        (await management.expect(200, "GET", f"/v1/keys/{one['id']}"))["status"] for one in (key, retired, spared)
    ]
    assert states == ["revoked", "revoked", "active"]
    (event,) = (await management.expect(200, "GET", f"/v1/audit?target=key:{key['id']}&action=key.contain"))["items"]
    assert (event["actor"]["id"], event["tenant_id"]) == ("github-secret-scanning", "acme")
    assert event["after"]["revoked_reason"] == f"found by GitHub secret scanning (content) at {URL}"
    text = management.metrics.exposition().decode()
    assert 'ostiary_leak_reports_total{result="revoked"} 2.0' in text
    assert 'ostiary_leak_reports_total{result="unknown"} 2.0' in text


async def test_reports_come_again(management: Management, github: Github) -> None:
    """The same key twice in a message, and in another message: revoked once, and true each time. R222."""
    key = await management.key()
    twice = await reported(management, github, report(key["secret"]), report(key["secret"], source="commit"))
    assert labels(twice) == ["true_positive"] * 2
    assert labels(await reported(management, github, report(key["secret"]))) == ["true_positive"]
    events = (await management.expect(200, "GET", f"/v1/audit?target=key:{key['id']}&action=key.contain"))["items"]
    assert [event["outcome"] for event in events] == ["changed", "unchanged"]
    assert labels(await reported(management, github)) == []


async def test_a_leak_may_only_be_put_on_record(postgres_dsn: str, github: Github) -> None:
    """With `report` the key works on, and the trail says where it was found; never with the token itself. R324."""
    scanning = GithubSecretScanning(action="report", public_keys_url=github.url)
    async with management_over(postgres_dsn, github=scanning) as world:
        await give_tokens(world)
        await world.plant()
        key = await world.key()
        secret = key["secret"]
        reply = await reported(world, github, report(secret, url=f"{URL}?key={secret}\r\nforged: line"))
        assert labels(reply) == ["true_positive"]
        assert (await world.expect(200, "GET", f"/v1/keys/{key['id']}"))["status"] == "active"
        (event,) = (await world.expect(200, "GET", "/v1/audit?action=key.leak_reported"))["items"]
        assert event["after"]["leak"] == f"found by GitHub secret scanning (content) at {URL}?key=...??forged: line"
        assert secret[16:] not in json.dumps(event)
        assert 'ostiary_leak_reports_total{result="noted"} 1.0' in world.metrics.exposition().decode()


async def test_what_is_not_signed_does_nothing(management: Management, github: Github) -> None:
    """No header, another key, another body, a signature of something else: 403, and all is as before."""
    key = await management.key()
    raw = json.dumps([report(key["secret"])]).encode()
    good = signed(github.key, raw)
    before = await management.execute(KEPT)
    for headers, body in (
        ({}, raw),
        ({KEY_HEADER: KEY_ID}, raw),
        ({SIGNATURE_HEADER: good[SIGNATURE_HEADER]}, raw),
        ({**good, KEY_HEADER: "unknown"}, raw),
        (signed(Github().key, raw), raw),
        (good, raw + b" "),
        (good, b"[]"),
        ({**good, SIGNATURE_HEADER: good[SIGNATURE_HEADER][:-8]}, raw),
    ):
        reply = await management.call("POST", PATH, raw=body, token=None, headers=headers)
        assert (reply.status, reply.code) == (403, "invalid_signature"), headers
    operator = await management.call("POST", PATH, raw=raw)
    assert operator.status == 403  # an admin token stands for no signature
    assert before == await management.execute(KEPT)
    assert 'ostiary_leak_reports_total{result="refused"} 9.0' in management.metrics.exposition().decode()


async def test_a_key_source_that_is_away_is_no_verdict(management: Management, github: Github) -> None:
    """503 with Retry-After, and nothing has changed: GitHub sends again. R070."""
    key = await management.key()
    github.status = 500
    before = await management.execute(KEPT)
    reply = await reported(management, github, report(key["secret"]))
    assert (reply.status, reply.code) == (503, "key_source_unavailable")
    assert int(reply.headers["Retry-After"]) >= 1
    assert before == await management.execute(KEPT)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{}", b"[5]", b'[{"type": "x"}]', b'[{"token": 5}]', b'[{"token": "a"}] x']
)
async def test_a_signed_body_that_is_none(management: Management, github: Github, body: bytes) -> None:
    """400; what was sent does not come back."""
    reply = await management.call("POST", PATH, raw=body, token=None, headers=signed(github.key, body))
    assert (reply.status, reply.code) == (400, "invalid_body")


async def test_many_reports_at_once(management: Management, github: Github) -> None:
    """More than other bodies may hold; fields that are new are passed over."""
    key = await management.key()
    many = [report(STRANGE[:-6] + f"{number:06}", score=5) for number in range(2_000)]
    assert labels(await reported(management, github, *many, report(key["secret"]))).count("true_positive") == 1
    too_many = await reported(management, github, *many, *many, *many)
    assert (too_many.status, too_many.code) == (413, "payload_too_large")


async def test_an_outage_of_the_store_is_told(management: Management, github: Github) -> None:
    """503: GitHub sends again. R070."""
    await management.execute("ALTER TABLE api_keys RENAME TO elsewhere")
    reply = await reported(management, github, report(STRANGE))
    assert (reply.status, reply.code) == (503, "auth_unavailable")


async def test_it_is_off_unless_it_is_configured(postgres_dsn: str) -> None:
    """Then the address does not exist."""
    async with management_over(postgres_dsn) as world:
        await give_tokens(world)
        assert (await world.call("POST", PATH, raw=b"[]", token=None)).status == 401
        assert (await world.call("POST", PATH, raw=b"[]")).status == 404
