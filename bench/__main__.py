"""The benchmarks' command line.

`python -m bench` measures an authenticated request; `python -m bench memory` what keys and connections take.
"""

import argparse
import signal
import sys
from types import FrameType

from bench import measure, memory, report
from bench.gateway_peer import Gateway
from bench.peers import Direct, Envoy, HAProxy, Nginx, Peer, Tunnel
from bench.processes import BenchError, take_cores


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["http", "memory"], default="http")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each peer (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round (default: 3)")
    parser.add_argument("--connections", type=int, default=32, help="keep-alive connections (default: 32)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="peers whose name holds one of these words")
    return parser.parse_args()


def _peers(words: list[str] | None) -> list[Peer]:
    peers: list[Peer] = [Direct(), Tunnel(), Nginx(), HAProxy(), Envoy(), Gateway()]
    if words is None:
        return peers
    return [peer for peer in peers if any(word.lower() in peer.name.lower() for word in words)]


def _http(arguments: argparse.Namespace) -> int:
    cores = take_cores()
    plan = measure.Plan(arguments.rounds, arguments.seconds, arguments.connections)
    rows, load_name = measure.measure(_peers(arguments.only), plan, cores)
    text = f"{report.table(rows, Tunnel.name)}\n\n{report.caption(plan, load_name)}"
    print(text)
    if arguments.only is None:  # a part of the table does not replace the whole one
        report.write_http(rows, plan, load_name, text)
    return 1 if any(row.failure for row in rows) else 0


def _memory() -> int:
    print(memory.run(take_cores()))
    return 0


def main() -> int:
    """Run what the command line asks for; 1 when a peer that is installed failed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    arguments = _arguments()
    try:
        return _memory() if arguments.what == "memory" else _http(arguments)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
