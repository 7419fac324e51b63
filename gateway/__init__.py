"""Ostiary, an API-key gateway.

The map, outermost first; an arrow of imports goes down only:

    cli/          the commands (`ostiary up`, `serve`, `keys` ...)
    workers/      several processes behind one set of ports (`serve --workers`)
    running/      how a process runs: signals, new settings, its end, and the process that comes after it
    app.py        the composition root, with front.py (the public listener), listeners.py and *_parts.py: the only
                  place that names concrete classes
    embedded/     a private PostgreSQL and Redis, and an example upstream, for `ostiary up`
    proxy/        bytes in, bytes out: the story of a request stands in `proxy/exchange.py`
    control/      aiohttp applications: management API, status, the gateway's own public endpoints
    auth/         secrets, credentials, principals, admission, identity headers: no sockets, no HTTP library
    limits/       rates and quotas: the arithmetic, who shares what, leases of budgets that nodes share (docs/limits.md)
    consistency/  the revision rule: view, feed, confirmation (docs/consistency.md)
    stores/       postgres/ (SQL, migrations), redis, local: what is kept, and where
    telemetry/    metrics
    settings.py   the configuration's schema (with setting_values.py, setting_rules.py); configuration/ reads the file
    errors.py     one root of all errors, and whose fault each is
    clock.py      the only source of time
"""

__version__ = "0.1.0"
