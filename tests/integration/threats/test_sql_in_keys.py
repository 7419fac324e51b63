"""Keys that are pieces of statements: what Postgres' own log of statements and parameters shows of them."""

import re

import pytest

from tests.fixtures.stand import FORMAT, Key, Stand, unknown_secret

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRACE = "zqx"  # stands in every injection, and in nothing else
INJECTIONS = [
    f"' OR '1'='1' -- {TRACE}",
    f'" OR ""="" -- {TRACE}',
    f"'; DROP TABLE api_keys; -- {TRACE}",
    f"') UNION SELECT * FROM admin_tokens -- {TRACE}",
    f"\\'; SELECT pg_sleep(9) -- {TRACE}",
    f"$1 {TRACE}",
    f"%s %(key)s {{key}} {TRACE}",
    f"E'\\x00' {TRACE}",
    f"$$; DELETE FROM api_keys; $$ {TRACE}",
    f"{{\\x00,\\x01}} {TRACE}",
    f"\u2019 OR 1=1 -- {TRACE}",
    f"/* {TRACE} */",
]
LOOKUP = re.compile(r"FROM (?:api_keys AS k|retired_secrets AS s)\b.*?DETAIL:  ([^\n]*)", re.DOTALL)
DIGESTS = re.compile(r"""Parameters: \$1 = '\\x[0-9a-f]{64}'(?:, \$[0-9]+ = '\\x[0-9a-f]{64}')*""")


def in_shape(injection: str) -> str:
    """The injection as part of something that looks like a key from afar: prefix, length and checksum."""
    good = unknown_secret()
    prefix = FORMAT.display_prefix(good)
    return prefix + injection + good[len(prefix) + len(injection) :]


@pytest.mark.threat("SQL in the key")
async def test_what_is_no_key_reaches_no_statement(stand: Stand) -> None:
    """It is refused for its shape, as the whole key and as a part of one, wherever it stands. R006."""
    node, mark = await stand.start_node(), stand.mark()
    for injection in INJECTIONS:
        for secret in (injection, in_shape(injection), unknown_secret() + injection):
            for headers in ({"X-Api-Key": secret}, {"Authorization": f"Bearer {secret}"}):
                answer = await stand.ask("GET", f"{node.proxy_url}/orders/1", headers=headers)
                assert (answer.status, answer.code) == (401, "invalid_api_key"), secret
    assert stand.lookups(mark) == (0, 0)
    assert TRACE not in stand.statements(mark)
    assert stand.upstream.requests == []


@pytest.mark.threat("SQL in the key")
async def test_lookups_carry_digests_alone(stand: Stand) -> None:
    """Whatever is looked up, good, retired, revoked or unknown: the only parameter is a list of digests. R040."""
    node = await stand.start_node()
    good, revoked = await stand.new_keys(2)
    retired = Key(good.id, unknown_secret())
    await stand.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", revoked.id)
    await stand.execute(
        "INSERT INTO retired_secrets (id, key_id, digest, prefix, expires_at)"
        " VALUES ($1, $2, $3, 'ost_', now() + interval '1 hour')",
        f"old-{good.id}",
        good.id,
        retired.digest,
    )
    await stand.heard_by([node])
    unknown = Key("", unknown_secret())
    mark = stand.mark()
    answers = [await stand.call(node, key.secret) for key in (good, retired, revoked, unknown)]
    assert [answer.status for answer in answers] == [200, 200, 401, 401]
    log = stand.statements(mark)
    lookups = LOOKUP.findall(log)
    assert len(lookups) == 6  # the retired and the unknown one are searched among both
    for parameters in lookups:
        assert DIGESTS.fullmatch(parameters), parameters
    for key in (good, retired, revoked, unknown):
        assert key.digest.hex() in "".join(lookups)
        assert key.secret.removeprefix(FORMAT.display_prefix(key.secret)) not in log
