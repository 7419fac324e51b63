"""The HTTP benchmark: what an authenticated request costs the proxy, beside its peers.

__main__     the command line: `python -m bench [http|memory]`
workload     the one request and the one reply that every peer carries
processes    starting, pinning, reading and stopping processes
upstream     a process: the origin behind every proxy
tunnel       a process: a bare byte tunnel, the floor
load         a process: the load generator used where `wrk` is missing
generator    drives `wrk` or `load` and reads their figures
peers        the proxies under test; their configurations lie in `peer_config/`
gateway_peer the gateway itself, with its own Postgres and Redis
measure      verification, warm-up, interleaved rounds
memory       what cached keys and idle connections cost
report       medians, tables, the facts of the machine, `results/`
"""
