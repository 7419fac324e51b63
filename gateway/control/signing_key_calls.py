"""The call that lists signing keys. What is done to them is done by a command, which has the key that seals them."""

from aiohttp import web

from gateway.control import answers
from gateway.control.calls import READERS_OF_ALL, Call, query_of
from gateway.control.pages import Listing
from gateway.control.problems import reply
from gateway.control.signing_keys import READ_SECONDS, shown
from gateway.stores.postgres import signing_keys as sql
from gateway.stores.postgres.connection import Postgres
from gateway.stores.postgres.signing_keys import SigningKeyRow


class SigningKeyCalls:
    """The handler of `/v1/signing-keys`."""

    def __init__(self, postgres: Postgres, environment: str) -> None:
        self._postgres = postgres
        self._environment = environment

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="GET",
                path="/v1/signing-keys",
                handler=self.list,
                roles=READERS_OF_ALL,
                about="List the keys that sign tokens, the oldest first, all on one page",
                query=Listing,
                answer=answers.SigningKeys,
            ),
        )

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/signing-keys`: never a private part."""
        query_of(request, Listing)
        rows = await listed(self._postgres, self._environment)
        return reply({"items": [shown(row) for row in rows], "next_cursor": None})


async def listed(postgres: Postgres, environment: str) -> list[SigningKeyRow]:
    """The signing keys of `environment`, the oldest first. Raises StoreUnavailable."""
    return await postgres.run(lambda c: sql.listed(c, environment), seconds=READ_SECONDS, is_read=True)
