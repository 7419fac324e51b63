"""The call that imports keys: a file in, a line for each of its rows out."""

import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from gateway.control import answers
from gateway.control.authorization import administrator_of
from gateway.control.bodies import read_raw
from gateway.control.calls import ADMINISTRATORS, NDJSON, Call, query_of
from gateway.control.import_rows import LARGEST_FILE_BYTES, MEDIA_TYPES, read_rows
from gateway.control.imports import Imports
from gateway.control.pages import Flag, Query
from gateway.control.problems import InvalidBody, PayloadTooLarge, UnsupportedMediaType
from gateway.errors import GatewayError


class ImportQuery(Query):
    """`POST /v1/imports`."""

    dry_run: Flag = False


class ImportCalls:
    """The handler of `/v1/imports`."""

    def __init__(self, imports: Imports) -> None:
        self._imports = imports

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="POST",
                path="/v1/imports",
                handler=self.run,
                roles=ADMINISTRATORS,
                about="Import keys by the SHA-256 of their secrets; a line for each row, and then the summary",
                query=ImportQuery,
                raw_types=tuple(MEDIA_TYPES),
                answer=answers.ImportLine,
                media_type=NDJSON,
                problems=(UnsupportedMediaType, PayloadTooLarge, InvalidBody),
            ),
        )

    async def run(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/imports?dry_run=`: JSON lines or CSV; the reply is JSON lines, written as batches are committed.

        The last line is the `summary`, or the `problem` that ended it. What cannot begin at all is a problem like any.
        """
        is_dry_run = query_of(request, ImportQuery).dry_run
        file_format = MEDIA_TYPES.get(request.content_type)
        if file_format is None:
            message = f"Use one of: {', '.join(MEDIA_TYPES)}"
            raise UnsupportedMediaType(request.content_type, issues=[{"place": "Content-Type", "message": message}])
        entries = read_rows(await read_raw(request, LARGEST_FILE_BYTES), file_format)
        batches = self._imports.run(administrator_of(request), entries, is_dry_run=is_dry_run)
        batch = await anext(batches, None)  # before the head: what fails at once has a status of its own
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            while batch is not None:
                await response.write(_lines(batch))
                try:
                    batch = await anext(batches, None)
                except GatewayError as error:
                    batch = None
                    await response.write(_lines([{"problem": {"code": error.code, "title": error.public}}]))
            await response.write_eof()
        except ConnectionError:
            pass  # the client has left; a repeat finishes it
        return response


def _lines(items: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)
