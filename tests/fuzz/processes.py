"""What processes of the gateway tell each other: any message is understood, or a failure that is told.

`data` is behind a byte that says what it is: the greeting of a process that gives its place, or a worker's line.
"""

import json
import socket
from typing import Any

from gateway.embedded.server_process import HOST
from gateway.running.handover import MESSAGE_BYTES, TakeOverFailed, received
from gateway.running.sockets import LISTENERS
from gateway.settings import Listen
from gateway.workers.channel import read

LISTEN = Listen.model_validate({name: f"{HOST}:{8080 + number}" for number, name in enumerate(LISTENERS)})
TOLD: dict[str, Any] = {
    "pid": 7,
    "listen": {name: str(getattr(LISTEN, name)) for name in LISTENERS},
    "queues": {name: [1] for name in LISTENERS},
}


def check(data: bytes) -> None:
    """See above."""
    if data[:1] == b"g":
        check_greeting(data[1:])
    elif data[:1] == b"w":
        try:
            message = read(data[1:])
        except ValueError:
            return
        assert isinstance(message, dict)


def check_greeting(message: bytes) -> None:
    """Sockets, each in its place, or a failure."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, socket.socket() as given:
        theirs.send(message[:MESSAGE_BYTES])
        for _ in range(3):
            socket.send_fds(theirs, [b"sockets"], [given.fileno()])
        theirs.close()
        try:
            pid, held = received(ours, LISTEN)
        except TakeOverFailed:
            return
    told = json.loads(message)
    assert pid == told["pid"]
    for name in LISTENERS:
        queues = getattr(held, name)
        assert [len(queue) for queue in queues] == told["queues"][name]
        for queue in queues:
            for one in queue:
                one.close()


def _greeting(**changes: Any) -> bytes:
    return b"g" + json.dumps({**TOLD, **changes}).encode()


SEEDS = [
    _greeting(),
    _greeting(queues={name: [] for name in LISTENERS}),
    _greeting(queues={name: [100] for name in LISTENERS}),
    _greeting(queues={name: [-1] for name in LISTENERS}),
    _greeting(queues={name: [0.5] for name in LISTENERS}),
    _greeting(queues={LISTENERS[0]: [3]}),
    _greeting(queues=[[1]]),
    _greeting(listen={}),
    _greeting(listen=dict.fromkeys(LISTENERS, "1.2.3.4:5")),
    _greeting(pid=None),
    b"g[]",
    b"g1",
    b"g",
    b"g" + b"[" * 3000,
    b'w{"say":"started","node":"n"}',
    b"w[]",
    b"w1",
    b"w" + b"[" * 3000,
    b"w\xff",
]
TOKENS = [
    *(json.dumps(name).encode() for name in (*TOLD, *LISTENERS, "say", "report", "to", "checks", "metrics", "node")),
    *(b"null", b"true", b"1e999", b"[]", b"{}", b"-1", b"[1]", b"[0]", b"\\ud800"),
]
