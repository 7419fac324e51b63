"""Holds connections: `python -m bench.scale.holder` reads an order, opens them, says so, and waits to be ended.

Each connection makes one request and then waits. They leave from one address after the other of 127.0.0.0/8, since an
address has some 28,000 ports for one destination.
"""

import json
import resource
import signal
import socket
import sys

_TIMEOUT_SECONDS = 30.0
_PORTS_OF_AN_ADDRESS = 10_000


def main() -> None:
    """Carry the order out. The number of connections is printed when all are there."""
    order = json.load(sys.stdin)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    head = order["head"].encode()
    held = []
    for number in range(order["count"]):
        client = socket.socket()
        client.settimeout(_TIMEOUT_SECONDS)
        client.bind((f"127.0.{order['net']}.{2 + number // _PORTS_OF_AN_ADDRESS}", 0))
        client.connect(("127.0.0.1", order["port"]))
        client.sendall(head)
        reply = client.recv(65536)
        if not reply.startswith(b"HTTP/1.1 200"):
            sys.exit(f"connection {number}: {reply[:100]!r}")
        held.append(client)
    print(len(held), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
