"""The benchmarks' command line.

`python -m bench` measures authenticated requests under every workload, then large bodies and WebSockets, revocations,
what only a gateway for keys meets, and what a second worker brings; `http`, `transfers`, `revocation`, `keys` or
`workers` behind it measures one of them, and `http --workload get varied` these workloads alone. `limits` measures
what each way of counting costs, and a million buckets, `observation` what the access log and traces cost;
`forward-auth` what it costs other proxies to ask; `memory` what keys and connections take, `listing` what a page of a
million keys costs, `scale` what ten million keys, fifty thousand connections and many nodes cost, `timing` what the
time of a refusal tells of the key, `behaviours` what each proxy does with doubtful HTTP.
"""

import argparse
import resource
import signal
import sys
from types import FrameType

from bench import (
    forward_auth,
    limits,
    listing,
    measure,
    memory,
    observation,
    request_report,
    revocation,
    timing,
    transfers,
    workers,
    workloads,
)
from bench.behaviours import command as behaviours
from bench.gateway_peer import Gateway
from bench.keys import command as keys
from bench.peers import (
    CONFIGURATIONS,
    AiohttpProxy,
    Direct,
    Envoy,
    ExpressGateway,
    HAProxy,
    Nginx,
    Peer,
    Tunnel,
    chosen,
)
from bench.processes import BenchError, Cores, take_cores
from bench.scale import command as scale

_ROUNDS = 3


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["all", *_COMMANDS], default="all")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"rounds of each peer (default: {_ROUNDS})")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round; some workloads' are longer")
    names = ", ".join(workload.name for workload in workloads.WORKLOADS)
    parser.add_argument("--workload", nargs="+", metavar="NAME", help=f"of the requests, these alone: {names}")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="peers (behaviours: cases) that hold one of these")
    parser.add_argument("--part", nargs="+", choices=scale.PARTS, default=scale.PARTS, help="of scale, these alone")
    parser.add_argument("--keys", type=int, default=10_000_000, help="of scale: rows in PostgreSQL")
    parser.add_argument("--entries", type=int, default=1_000_000, help="of scale: entries in Redis")
    parser.add_argument("--held", type=int, default=100_000, help="of scale: keys in the process")
    return parser.parse_args()


def _http(arguments: argparse.Namespace, cores: Cores) -> int:
    plan = measure.Plan(arguments.rounds, arguments.seconds)
    wanted = workloads.chosen(arguments.workload)
    if not wanted:
        raise BenchError(f"no workload has such a name: {', '.join(arguments.workload)}")
    peers: list[Peer] = [
        Direct(),
        Tunnel(),
        Nginx(),
        HAProxy(),
        Envoy(),
        AiohttpProxy(),
        ExpressGateway(),
        Gateway(),
        Gateway(is_compiled=True),
    ]
    has_failed = False
    for measured in measure.measure(chosen(peers, arguments.only), wanted, plan, cores):
        print(f"\n{request_report.text(measured, plan)}\n", flush=True)
        has_failed |= any(row.failure for row in measured.rows)
        if arguments.only is None:  # a part of the table does not replace the whole one
            request_report.write(measured, plan)
            request_report.write_overview()
    return int(has_failed)


def _transfers(arguments: argparse.Namespace, cores: Cores) -> int:
    rounds = arguments.rounds
    folder = CONFIGURATIONS / "transfers"
    peers: list[Peer] = [Direct(), Tunnel(), Nginx(folder), HAProxy(), Envoy(folder), Gateway()]
    rows = transfers.measure(chosen(peers, arguments.only), rounds, cores)
    text = f"{transfers.table(rows)}\n\n{transfers.caption(rounds)}"
    print(text)
    if arguments.only is None:
        transfers.write(rows, rounds, text)
    return 1 if any(row.failure for row in rows) else 0


def _memory(arguments: argparse.Namespace, cores: Cores) -> int:
    print(memory.run(cores))
    return 0


def _behaviours(arguments: argparse.Namespace, cores: Cores) -> int:
    print(behaviours.run(cores, arguments.only))
    return 0


def _revocation(arguments: argparse.Namespace, cores: Cores) -> int:
    print(revocation.run(cores))
    return 0


def _workers(arguments: argparse.Namespace, cores: Cores) -> int:
    print(workers.run(cores))
    return 0


def _listing(arguments: argparse.Namespace, cores: Cores) -> int:
    print(listing.run(cores))
    return 0


def _scale(arguments: argparse.Namespace, cores: Cores) -> int:
    print(scale.run(cores, scale.Sizes(arguments.keys, arguments.entries, arguments.held, arguments.part)))
    return 0


def _timing(arguments: argparse.Namespace, cores: Cores) -> int:
    print(timing.run(cores))
    return 0


def _keys(arguments: argparse.Namespace, cores: Cores) -> int:
    print(keys.run(cores))
    return 0


def _limits(arguments: argparse.Namespace, cores: Cores) -> int:
    return limits.run(cores, measure.Plan(arguments.rounds, arguments.seconds), arguments.only)


def _observation(arguments: argparse.Namespace, cores: Cores) -> int:
    return observation.run(cores, measure.Plan(arguments.rounds, arguments.seconds), arguments.only)


def _forward_auth(arguments: argparse.Namespace, cores: Cores) -> int:
    print(forward_auth.run(cores, measure.Plan(arguments.rounds, arguments.seconds)))
    return 0


_COMMANDS = {
    "http": _http,
    "transfers": _transfers,
    "revocation": _revocation,
    "keys": _keys,
    "workers": _workers,
    "listing": _listing,
    "memory": _memory,
    "scale": _scale,
    "limits": _limits,
    "timing": _timing,
    "behaviours": _behaviours,
    "forward-auth": _forward_auth,
    "observation": _observation,
}
_OF_PEERS = ("http", "transfers")
_BY_DEFAULT = (*_OF_PEERS, "revocation", "keys", "workers")


def main() -> int:
    """Run what the command line asks for; 1 when a peer that is installed failed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    arguments = _arguments()
    names: tuple[str, ...] = (arguments.what,)
    if arguments.what == "all":
        names = _BY_DEFAULT if arguments.only is None else _OF_PEERS
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        cores = take_cores()
        return max([_COMMANDS[name](arguments, cores) for name in names])
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
