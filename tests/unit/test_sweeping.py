"""The sweep at the end of every node and database finds what it is for."""

import asyncpg
import pytest

from gateway.auth.secrets import SecretFormat
from gateway.control.admin_tokens import generate
from tests.fixtures import psql
from tests.fixtures.signed import Signer
from tests.fixtures.stores import Databases
from tests.fixtures.sweeping import secrets_in

KEY = SecretFormat("ost", "prod").generate()


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        pytest.param(KEY, True, id="a key"),
        pytest.param(f"key={KEY},", True, id="a key among others"),
        pytest.param(SecretFormat("acme", "eu-west").generate(), True, id="another prefix and environment"),
        pytest.param(generate(), True, id="an admin token"),
        pytest.param(Signer().sign({"sub": "ada", "iss": "https://api.example.com"}), True, id="an access token"),
        pytest.param(KEY[:-1] + ("0" if KEY[-1] != "0" else "1"), False, id="a wrong checksum"),
        pytest.param(KEY[:15], False, id="a display prefix"),
        pytest.param("key_01m80yrv2j9w6tsfsgxex7s5re", False, id="an id"),
    ],
)
def test_what_is_a_secret(text: str, is_found: bool) -> None:
    """What was really issued, wherever it stands. R324."""
    assert bool(list(secrets_in(f"before {text} behind".encode()))) is is_found


async def test_a_secret_in_a_table_fails_the_test_that_left_it(databases: Databases) -> None:
    """In any column, of any table. R324 R040."""
    dsn = await databases.create(is_migrated=True)
    await psql.value(dsn, "INSERT INTO tenants (id, name) VALUES ('a', $1)", KEY)
    with pytest.raises(AssertionError, match="a secret in the database"):
        await databases.drop(dsn)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(dsn)
