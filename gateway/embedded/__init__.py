"""A private PostgreSQL and Redis beside the gateway: for `ostiary up` and for the tests.

postgres.py, redis.py   the two servers
server_process.py       what they have in common: a child process, its port, its files
launcher.py             what the child runs first: gives up root, arranges to die with its parent, becomes the server
keeper.py               the process in between, which stops the servers when whoever asked for them is gone
example.py              the upstream that `ostiary up` forwards to
"""
