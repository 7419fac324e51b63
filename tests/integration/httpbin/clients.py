"""Four HTTP clients as people use them, behind one interface. None of them decodes a body unless it is asked to."""

import asyncio
import contextlib
import io
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import httpx
import requests

from tests.integration.httpbin.answers import Answer, parse

TIMEOUT_SECONDS = 30
PART_BYTES = 65_536

Pairs = Sequence[tuple[str, str]]
ReadPart = Callable[[], Awaitable[bytes]]  # the next part of a body, as soon as there is one; empty at its end


@dataclass(frozen=True)
class Visit:
    """What a session saw: status, final URL and body of each page, and how many connections it took."""

    pages: list[tuple[int, str, bytes]]
    connections: int


class Client(Protocol):
    """An HTTP client. It follows redirects, keeps cookies and decodes bodies in `browse` and `upload` alone."""

    name: str

    async def fetch(
        self, method: str, url: str, headers: Pairs = (), body: bytes | None = None, *, is_chunked: bool = False
    ) -> Answer:
        """One request on a connection of its own; `is_chunked` sends the body without announcing its length."""
        ...

    def opened(self, url: str, headers: Pairs) -> contextlib.AbstractAsyncContextManager[ReadPart]:
        """A GET whose body is read part by part."""
        ...

    async def browse(self, urls: Sequence[str], headers: Pairs) -> Visit:
        """GET the pages one after another in one session."""
        ...

    async def upload(self, url: str, headers: Pairs, fields: Mapping[str, str], file: bytes) -> Any:
        """POST a multipart form of the client's own making, with `file` as `upload`; the JSON that comes back."""
        ...


class Curl:
    """The command. Without it the suite fails: it is not a Python package, so nobody can install it along."""

    name = "curl"

    def __init__(self) -> None:
        path = shutil.which("curl")
        assert path is not None, "curl is not on PATH; install it (Debian: apt install curl)"
        self._path = path

    async def run(self, *arguments: str, stdin: bytes = b"") -> tuple[bytes, str]:
        """Its output and what it said on stderr. Fails the test where curl does."""
        fixed = ("--silent", "--show-error", "--http1.1", "--max-time", str(TIMEOUT_SECONDS))
        process = await asyncio.create_subprocess_exec(
            self._path,
            *fixed,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(stdin)
        assert process.returncode == 0, f"curl ended with {process.returncode}: {errors.decode()}"
        return output, errors.decode("latin-1")

    async def fetch(
        self, method: str, url: str, headers: Pairs = (), body: bytes | None = None, *, is_chunked: bool = False
    ) -> Answer:
        """As Client."""
        arguments = ["--include", *_header_arguments(headers), url]
        arguments += ["--head"] if method == "HEAD" else ["--request", method]
        if body is not None:
            arguments += ["--upload-file", "-"] if is_chunked else ["--data-binary", "@-"]
        output, _ = await self.run(*arguments, stdin=body or b"")
        head, end, payload = _final_head(output)
        answer = parse(head + end, is_head=True)  # curl has undone the chunks and left the header
        return Answer(answer.status, answer.reason, answer.headers, payload, answer.version)

    @contextlib.asynccontextmanager
    async def opened(self, url: str, headers: Pairs) -> AsyncIterator[ReadPart]:
        """As Client."""
        process = await asyncio.create_subprocess_exec(
            self._path,
            *("--silent", "--no-buffer", "--http1.1", *_header_arguments(headers), url),
            stdout=asyncio.subprocess.PIPE,
        )
        stdout = process.stdout
        assert stdout is not None
        try:
            yield lambda: stdout.read(PART_BYTES)
        finally:
            if process.returncode is None and not stdout.at_eof():
                process.kill()
            await process.wait()

    async def browse(self, urls: Sequence[str], headers: Pairs) -> Visit:
        """As Client."""
        mark = "\n-- end of a page --\n"
        after = f"{mark}%{{http_code}} %{{url_effective}} %{{num_connects}}{mark}"
        output, _ = await self.run(
            *("--location", "--cookie", "", "--compressed", "--write-out", after, *_header_arguments(headers), *urls)
        )
        parts = output.split(mark.encode())
        pages = []
        connections = 0
        for body, said in zip(parts[:-1:2], parts[1::2], strict=True):
            status, url, opened = said.decode().split(" ")
            pages.append((int(status), url, body))
            connections += int(opened)
        return Visit(pages, connections)

    async def upload(self, url: str, headers: Pairs, fields: Mapping[str, str], file: bytes) -> Any:
        """As Client."""
        forms = [part for name, value in fields.items() for part in ("--form", f"{name}={value}")]
        forms += ["--form", "upload=@-;filename=upload.bin"]
        output, _ = await self.run(*_header_arguments(headers), *forms, url, stdin=file)
        return json.loads(output)


class Requests:
    """requests, on urllib3 and http.client. It blocks, so it has threads."""

    name = "requests"

    async def fetch(
        self, method: str, url: str, headers: Pairs = (), body: bytes | None = None, *, is_chunked: bool = False
    ) -> Answer:
        """As Client."""

        def work() -> Answer:
            data = iter([body]) if is_chunked and body else body
            with (
                requests.Session() as session,
                session.request(
                    method,
                    url,
                    headers=dict(headers),
                    data=data,
                    allow_redirects=False,
                    stream=True,
                    timeout=TIMEOUT_SECONDS,
                ) as response,
            ):
                raw = response.raw
                payload = raw.read(decode_content=False)
                return Answer(response.status_code, response.reason, tuple(raw.headers.iteritems()), payload)

        return await asyncio.to_thread(work)

    @contextlib.asynccontextmanager
    async def opened(self, url: str, headers: Pairs) -> AsyncIterator[ReadPart]:
        """As Client."""
        with requests.Session() as session:
            response = await asyncio.to_thread(
                session.get, url, headers=dict(headers), stream=True, timeout=TIMEOUT_SECONDS
            )
            with response:
                yield lambda: asyncio.to_thread(response.raw.read1, PART_BYTES)

    async def browse(self, urls: Sequence[str], headers: Pairs) -> Visit:
        """As Client."""

        def work() -> Visit:
            with requests.Session() as session:
                session.headers.update(dict(headers))
                replies = [session.get(url, timeout=TIMEOUT_SECONDS) for url in urls]
                adapter: Any = session.get_adapter(urls[0])
                pools, keys = adapter.poolmanager.pools, adapter.poolmanager.pools.keys()
                pages = [(reply.status_code, reply.url, reply.content) for reply in replies]
                return Visit(pages, sum(pools[key].num_connections for key in keys))

        return await asyncio.to_thread(work)

    async def upload(self, url: str, headers: Pairs, fields: Mapping[str, str], file: bytes) -> Any:
        """As Client."""

        def work() -> Any:
            files = {"upload": ("upload.bin", file)}
            with requests.post(
                url, headers=dict(headers), data=dict(fields), files=files, timeout=TIMEOUT_SECONDS
            ) as reply:
                return reply.json()

        return await asyncio.to_thread(work)


class Httpx:
    """httpx, on httpcore and h11."""

    name = "httpx"

    @staticmethod
    def _client(**options: Any) -> httpx.AsyncClient:
        # `verify`: nothing here is TLS, and loading the certificates costs more than the request.
        return httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, verify=False, **options)

    async def fetch(
        self, method: str, url: str, headers: Pairs = (), body: bytes | None = None, *, is_chunked: bool = False
    ) -> Answer:
        """As Client."""
        content = _parts_of(body) if is_chunked and body else body
        async with (
            self._client() as client,
            client.stream(method, url, headers=list(headers), content=content) as response,
        ):
            payload = b"".join([part async for part in response.aiter_raw()])
            fields = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw)
            return Answer(response.status_code, response.reason_phrase, fields, payload)

    @contextlib.asynccontextmanager
    async def opened(self, url: str, headers: Pairs) -> AsyncIterator[ReadPart]:
        """As Client."""
        async with self._client() as client, client.stream("GET", url, headers=list(headers)) as response:
            parts = response.aiter_raw()

            async def read() -> bytes:
                return await anext(parts, b"")

            yield read

    async def browse(self, urls: Sequence[str], headers: Pairs) -> Visit:
        """As Client."""
        connections = 0

        async def trace(event: str, _: object) -> None:
            nonlocal connections
            connections += event == "connection.connect_tcp.complete"

        async with self._client(follow_redirects=True, headers=list(headers)) as client:
            replies = [await client.get(url, extensions={"trace": trace}) for url in urls]
        return Visit([(reply.status_code, str(reply.url), reply.content) for reply in replies], connections)

    async def upload(self, url: str, headers: Pairs, fields: Mapping[str, str], file: bytes) -> Any:
        """As Client."""
        files = {"upload": ("upload.bin", file)}
        async with self._client() as client:
            reply = await client.post(url, headers=list(headers), data=dict(fields), files=files)
            return reply.json()


class Aiohttp:
    """aiohttp's client."""

    name = "aiohttp"

    @staticmethod
    def _session(**options: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS), **options)

    async def fetch(
        self, method: str, url: str, headers: Pairs = (), body: bytes | None = None, *, is_chunked: bool = False
    ) -> Answer:
        """As Client."""
        # Large bodies it takes as files alone; their length is announced all the same.
        data = None if body is None else _parts_of(body) if is_chunked and body else io.BytesIO(body)
        async with (
            self._session(auto_decompress=False) as session,
            session.request(method, url, headers=list(headers), data=data, allow_redirects=False) as response,
        ):
            payload = await response.read()
            fields = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers)
            return Answer(response.status, response.reason or "", fields, payload)

    @contextlib.asynccontextmanager
    async def opened(self, url: str, headers: Pairs) -> AsyncIterator[ReadPart]:
        """As Client."""
        async with self._session() as session, session.get(url, headers=list(headers)) as response:
            yield response.content.readany

    async def browse(self, urls: Sequence[str], headers: Pairs) -> Visit:
        """As Client."""
        connections = 0

        async def connected(*_: object) -> None:
            nonlocal connections
            connections += 1

        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(connected)
        jar = aiohttp.CookieJar(unsafe=True)  # of an IP address
        pages = []
        async with self._session(cookie_jar=jar, trace_configs=[tracing], headers=list(headers)) as session:
            for url in urls:
                async with session.get(url) as reply:
                    pages.append((reply.status, str(reply.url), await reply.read()))
        return Visit(pages, connections)

    async def upload(self, url: str, headers: Pairs, fields: Mapping[str, str], file: bytes) -> Any:
        """As Client."""
        form = aiohttp.FormData(dict(fields))
        form.add_field("upload", file, filename="upload.bin")
        async with self._session() as session, session.post(url, headers=list(headers), data=form) as reply:
            return await reply.json()


CLIENTS: tuple[type[Client], ...] = (Curl, Requests, Httpx, Aiohttp)


def _header_arguments(headers: Pairs) -> list[str]:
    return [part for name, value in headers for part in ("--header", f"{name}: {value}")]


def _final_head(output: bytes) -> tuple[bytes, bytes, bytes]:
    head, end, rest = output.partition(b"\r\n\r\n")
    return _final_head(rest) if head.startswith(b"HTTP/1.1 1") else (head, end, rest)


async def _parts_of(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), PART_BYTES):
        yield body[start : start + PART_BYTES]
