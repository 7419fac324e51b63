"""A management API, as the commands call it."""

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from gateway.cli.failures import ApiUnreachable, CallRefused
from gateway.cli.output import counting

PAGE = 200
CALL_SECONDS = 30.0
LONG_CALL_SECONDS = 900.0  # a large tenant goes in pieces, and each is seen through to every node


class Api:
    """The API at `url`, as whoever the session's token says. Every method raises ApiUnreachable and CallRefused."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        seconds: float = CALL_SECONDS,
    ) -> dict[str, Any]:
        """The object that a call answers; an empty one where it answers nothing."""
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.request(
                method, self._url + path, json=body, params=query, timeout=timeout
            ) as response:
                return {} if response.status == 204 else await self._object(response)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiUnreachable(self._url, type(error).__name__) from error

    async def find(self, path: str) -> dict[str, Any] | None:
        """The object at `path`; None where there is none."""
        try:
            return await self.call("GET", path)
        except CallRefused as refused:
            if refused.status == 404:
                return None
            raise

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
        """All items of a listing; how many there are so far is told meanwhile."""
        items: list[dict[str, Any]] = []
        with counting("reading") as tell:
            async for page in self.pages(path, filters):
                items += page
                tell(len(items))
        return items

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
async def session_at(
    token: str, connector: aiohttp.BaseConnector | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose every request carries the token."""
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"},
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
    ) as session:
        yield session


@asynccontextmanager
async def open_api(url: str, token: str) -> AsyncIterator[Api]:
    """The API at `url`."""
    async with session_at(token) as session:
        yield Api(session, url)
