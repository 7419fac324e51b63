"""A running gateway's management API, as the commands call it."""

import asyncio
import getpass
import io
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import typer

from gateway.cli.failures import ApiUnreachable, CallRefused

TOKEN_VARIABLE = "OSTIARY_ADMIN_TOKEN"  # noqa: S105  # a name, not a token
PAGE = 200
CALL_SECONDS = 30.0

T = TypeVar("T")


class Api:
    """The API at `url`, as whoever the admin token says. Every method raises ApiUnreachable and CallRefused."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The object that a call answers."""
        try:
            async with self._session.request(method, self._url + path, json=body, params=query) as response:
                return await self._object(response)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiUnreachable(self._url, type(error).__name__) from error

    async def pages(self, path: str, filters: Mapping[str, str]) -> AsyncIterator[list[dict[str, Any]]]:
        """The items of a listing, a page at a time."""
        query = {**filters, "limit": str(PAGE)}
        while True:
            page = await self.call("GET", path, query=query)
            yield page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    async def listing(self, path: str, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """All items of a listing."""
        return [item async for page in self.pages(path, filters) for item in page]

    async def lines(
        self, path: str, query: Mapping[str, str], *, method: str = "GET", file: tuple[str, bytes] | None = None
    ) -> AsyncIterator[bytes]:
        """The lines of a reply as they come; if it is cut off, ApiUnreachable. `file`: its type and content."""
        unbounded = aiohttp.ClientTimeout(total=None, sock_read=CALL_SECONDS)
        headers, data = ({}, None) if file is None else ({"Content-Type": file[0]}, io.BytesIO(file[1]))
        try:
            async with self._session.request(
                method, self._url + path, params=query, headers=headers, data=data, timeout=unbounded
            ) as response:
                if response.status != 200:
                    await self._object(response)
                rest = b""
                async for chunk in response.content.iter_any():  # a line may be longer than a reader's limit
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiUnreachable(self._url, type(error).__name__) from error

    async def _object(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        answer = await response.json(content_type=None)
        if not isinstance(answer, dict):
            raise ApiUnreachable(self._url, f"{response.status} without an object")
        if response.status >= 400:
            raise CallRefused(response.status, answer)
        return answer


@asynccontextmanager
async def open_api(url: str, token: str) -> AsyncIterator[Api]:
    """The API at `url`."""
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"}, timeout=aiohttp.ClientTimeout(total=CALL_SECONDS)
    ) as session:
        yield Api(session, url)


def through_api(url: str, token: str, do: Callable[[Api], Awaitable[T]]) -> T:
    """What `do` makes of the API at `url`."""

    async def run() -> T:
        async with open_api(url, token) as opened:
            return await do(opened)

    return asyncio.run(run())


def read_token() -> str:
    """The admin token: from the environment, else from stdin. Never from the command line, which others can see."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        token = (getpass.getpass("Admin token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise typer.BadParameter(f"put an admin token into {TOKEN_VARIABLE}, or write one to stdin", param_hint="--api")
    return token
