"""What a request, a transfer and a cached key cost the proxy, and what it does with doubtful HTTP, beside its peers.

__main__        the command line: `python -m bench [http|transfers|memory|behaviours]`
workload        what the requests and replies that every peer carries are made of
workloads       what is asked of every peer, one declaration each
processes       starting, pinning, reading and stopping processes
certificates    for listeners that speak TLS
upstream        a process: the origin behind every proxy
tunnel          a process: a bare byte tunnel, the floor
aiohttp_proxy   a process: a key-checking proxy in a page of Python
load, offered   processes: load in a closed loop, where `wrk` is missing, and in an open one
orders          what such a process is told, and when it says that it begins; with `replies`, `alarm`
generator       drives `wrk`, `load` and `offered` and reads their `figures`
peers/          the proxies under test; their configurations lie in `peer_config/`
gateway_peer    the gateway itself, with its own Postgres and Redis
measure         verification, warm-up, interleaved rounds
request_report  the tables and pictures of the workloads; with `plot`, which draws bars
transfers       a gigabyte each way and 100,000 WebSocket messages; with `transfer_workload`, `_upstream` and `_load`
behaviours/     the table of `docs/http.md`: the same bytes to every proxy, and what becomes of them
memory          what cached keys and idle connections cost
revocation      how quickly a revocation is true everywhere
listing         what a page of a million keys costs
report          Markdown, the facts of the machine, `results/`
"""
