"""The floor: a TCP tunnel that moves bytes both ways and looks at none of them.

A side that does not take more makes the other one wait.

Usage: `python -m bench.tunnel UPSTREAM_PORT [--tls CHAIN KEY]`; with a certificate, clients speak TLS to it.
The port it listens on is printed on standard output.
"""

import argparse
import asyncio
import ssl

import uvloop


class Far(asyncio.Protocol):
    """The connection to the upstream."""

    def __init__(self, near: asyncio.Transport) -> None:
        self._near = near

    def pause_writing(self) -> None:
        """The upstream takes no more."""
        self._near.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self._near.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Hand bytes back to the client."""
        self._near.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side too."""
        self._near.close()


class Near(asyncio.Protocol):
    """The connection from a client."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._far: asyncio.Transport | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Open the connection behind this one."""
        self._near = transport
        self._opening = asyncio.ensure_future(self._open())

    def pause_writing(self) -> None:
        """The client takes no more."""
        if self._far is not None:
            self._far.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        if self._far is not None:
            self._far.resume_reading()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            far, _ = await loop.create_connection(lambda: Far(self._near), "127.0.0.1", self._upstream_port)
        except OSError:
            self._near.close()
            return
        if self._near.is_closing():
            far.close()
            return
        if self._early:
            far.write(self._early)
        self._far = far

    def data_received(self, data: bytes) -> None:
        """Hand bytes on to the upstream."""
        if self._far is None:
            self._early += data
        else:
            self._far.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side too."""
        if self._far is not None:
            self._far.close()


async def serve(upstream_port: int, context: ssl.SSLContext | None) -> None:
    """Listen on a free loopback port until the process is told to stop."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Near(upstream_port), "127.0.0.1", 0, backlog=4096, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("upstream_port", type=int)
    parser.add_argument("--tls", nargs=2)
    arguments = parser.parse_args()
    context = None
    if arguments.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*arguments.tls)
    uvloop.run(serve(arguments.upstream_port, context))


if __name__ == "__main__":
    main()
