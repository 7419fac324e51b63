"""The promise, for real: when a change that takes something away has been answered, no node admits by what was before.

Real nodes, one real Postgres, one real Redis, a wire between each node and each store, callers who never pause,
writers who change everything, and faults without end: `python -m tests.chaos` (`make chaos`). In the order of reading:

    gates.py       what a request must not pass, and what it must: the checker
    cast.py        tenants, plans, users, keys, secrets, and the gates before each secret
    traffic.py     callers on every node; every admission is judged where the upstream sees it
    admins.py      callers of the management API, and whether their tokens should have opened it
    operators.py   the management API and psql, and when a change counts as answered
    writers.py     who changes things, at random: key_changes.py, owner_changes.py and token_changes.py say what
    pulse.py       whether the machine is quiet enough to tell who is slow
    stage.py       nodes, stores and wires (tests/fixtures/wire.py)
    faults.py      what is done to them, in which order, and when everybody is well again: strikes.py has the kinds
    measures.py    how much of everything
    run.py         all of it together
    tally.py       what is counted, and what must not be: report.py makes the table
"""
