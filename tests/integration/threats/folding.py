"""Upstreams that cannot tell `X_User_Id` from `X-User-Id`: what their applications see of a request's header."""

import contextlib
import json
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from gateway.embedded.server_process import HOST
from tests.fixtures.ports import free_port
from tests.fixtures.programs import Program
from tests.fixtures.upstream import RecordedRequest, RecordingUpstream, Reply

ROOT = Path(__file__).parents[3]  # where modules are imported from
StartResponse = Callable[[str, list[tuple[str, str]]], object]


def tell(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """A WSGI application that answers with the header fields as WSGI names them."""
    seen = json.dumps({name: value for name, value in environ.items() if name.startswith("HTTP_")}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(seen)))])
    return [seen]


class _Silent(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@contextlib.contextmanager
def wsgiref_server() -> Iterator[str]:
    """The standard library's server, which joins what folds to the same name; yields its URL."""
    with make_server(HOST, 0, tell, handler_class=_Silent) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.asynccontextmanager
async def gunicorn_server(folder: Path) -> AsyncIterator[str]:
    """Gunicorn, told to keep names with underscores as it once did by itself; yields its URL."""
    url = f"http://{HOST}:{(port := free_port())}"
    command = [sys.executable, "-m", "gunicorn", "--bind", f"{HOST}:{port}", "--header-map", "dangerous"]
    # Where it may put its control socket, and where it finds this application.
    places = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    gunicorn = Program("gunicorn", folder)
    await gunicorn.start([*command, f"{__name__}:tell"], places, asked=url, status=200)
    try:
        yield url
    finally:
        await gunicorn.stop()


def php_names(request: RecordedRequest) -> Reply:
    """A reply with the names that PHP and CGI would make of the header: the last of those that fold alike wins."""
    seen = {"HTTP_" + re.sub("[^A-Z0-9]", "_", name.upper()): value for name, value in request.headers}
    return Reply(body=json.dumps(seen).encode(), headers={"Content-Type": "application/json"})


@contextlib.asynccontextmanager
async def php_like_server() -> AsyncIterator[str]:
    """A server that names header fields as PHP does; yields its URL."""
    async with RecordingUpstream(php_names) as server:
        yield server.url
