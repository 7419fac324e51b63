"""Every part hurt, one at a time, under traffic that never pauses: who is answered what, for how long, and what after.

Two real nodes, the second of two workers, over one real Postgres and one real Redis, with a wire from each node to each
store; two upstreams that count; callers with good keys and with others, tokens, streams and sockets; an operator who
makes and revokes keys. `python -m tests.faults` (`make faults`) does all of it and writes docs/faults.md. In the order
of reading:

    permitted.py   words for what callers get, and what a fault permits: data
    verdict.py     what an answer says, held against what was permitted: the checker, pure
    caller.py      a connection that notices every lost, strange and second answer
    upstreams.py   what is behind the gateway: it counts, and may be told to misbehave
    stage.py       stores, wires, upstreams and nodes; steadiness.py tells whether the machine lets them run
    people.py      keys good and bad, and the operator
    traffic.py     who asks what; live.py has those whose connection stays
    catalogue.py   how a fault is written down
    kinds/         the faults; limits.py takes disk and descriptors from a process
    run.py         one fault: calm, hurt, undone, well again, calm
    page.py        docs/faults.md: peers.json says what others do
"""
