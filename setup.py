"""What pyproject.toml cannot say: with OSTIARY_COMPILE=1 the modules of the warm path are built as C, by mypyc.

The sources are the same, and so are the tests: `make test-compiled`. Why these modules: docs/decisions/0019.
"""

import os
from typing import Any

from setuptools import setup

WARM = [
    *(f"gateway/proxy/{name}.py" for name in ("client", "request_head", "remembered", "framing", "router")),
    *(f"gateway/proxy/{name}.py" for name in ("exchange", "ending", "recorded", "tries")),
    *(
        f"gateway/proxy/{name}.py"
        for name in ("heads", "edge", "target", "upstream_connection", "response_head", "tally", "inquiry")
    ),
    *(f"gateway/limits/{name}.py" for name in ("account", "calendar", "limit", "limiter", "rules")),
    "gateway/proxy/limiting.py",
    "gateway/proxy/explained_limits.py",  # not warm: but the heir of a class that is built must be built with it
    "gateway/telemetry/hot.py",
]


def extensions() -> list[Any]:
    """The modules to build as C."""
    if os.environ.get("OSTIARY_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    return list(mypycify(WARM, opt_level="3"))


if __name__ == "__main__":
    setup(ext_modules=extensions())
