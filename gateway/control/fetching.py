"""JSON documents of others, fetched over HTTP: bounded, and from nowhere but where we ask."""

import json

import aiohttp

CHUNK_BYTES = 16 * 1024


class NotFetched(Exception):
    """The answer is not the document. The message says why, and where it was asked for."""


async def fetched_json(session: aiohttp.ClientSession, url: str, *, limit_bytes: int) -> object:
    """The JSON at `url`. Who is sent elsewhere does not go: the answer would be somebody else's.

    Raises NotFetched, and what aiohttp raises where there is no answer at all.
    """
    read = bytearray()
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise NotFetched(f"{url} answers {response.status}")
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            read += chunk
            if len(read) > limit_bytes:
                raise NotFetched(f"{url} answers with more than {limit_bytes} bytes")
    try:
        return json.loads(read)
    except (ValueError, RecursionError) as error:
        raise NotFetched(f"{url} is no JSON") from error
