"""What a request, a transfer and a cached key cost the proxy, and what it does with doubtful HTTP, beside its peers.

__main__     the command line: `python -m bench [http|transfers|memory|behaviours]`
workload     the one request and the one reply that every peer carries
processes    starting, pinning, reading and stopping processes
upstream     a process: the origin behind every proxy
tunnel       a process: a bare byte tunnel, the floor
load         a process: the load generator used where `wrk` is missing
generator    drives `wrk` or `load` and reads their figures
peers        the proxies under test; their configurations lie in `peer_config/`
gateway_peer the gateway itself, with its own Postgres and Redis
measure      verification, warm-up, interleaved rounds
transfers    a gigabyte each way and 100,000 WebSocket messages; with `transfer_workload`, `_upstream` and `_load`
behaviours/  the table of `docs/http.md`: the same bytes to every proxy, and what becomes of them
memory       what cached keys and idle connections cost
report       medians, tables, the facts of the machine, `results/`
"""
