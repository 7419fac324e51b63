"""All cases of the Autobahn suite, of a server and of a gateway in front of it: `make autobahn`.

Prints a line per section; exit code 1 where the gateway makes a difference.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from gateway.embedded.keeper import Keeper
from gateway.stores.postgres.migrate import migrate
from tests.conformance.websocket.autobahn_cases import (
    ALL_BUT_DEFLATE,
    DEFLATE,
    SERVERS_OWN_FAULTS,
    is_passed,
    names,
    verdicts,
)
from tests.conformance.websocket.world import standing


async def main() -> int:
    """Run everything; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="ostiary-autobahn-") as name:
        keeper = Keeper(Path(name) / "stores", is_durable=False)
        try:
            addresses = keeper.start()
            assert addresses.postgres_dsn is not None
            await migrate(addresses.postgres_dsn)
            async with standing(Path(name), addresses.postgres_dsn) as world:
                return await compare(*world.autobahn_urls)
        finally:
            keeper.stop()


async def compare(direct_url: str, through_url: str) -> int:
    """Run section after section; return the exit code."""
    exit_code = 0
    for section, count in (ALL_BUT_DEFLATE | DEFLATE).items():
        cases = names({section: count})
        direct, through = await verdicts(direct_url, cases), await verdicts(through_url, cases)
        passed = [case for case in cases if is_passed(through[case])]
        print(f"{section:>5}: {len(passed):2} of {count:2} passed")
        for case in cases:
            if through[case] != direct[case]:
                print(f"       {case}: {through[case]} through the gateway, {direct[case]} without")
                exit_code = 1
            elif case not in passed:
                print(f"       {case}: the server's own fault")
                exit_code |= case not in SERVERS_OWN_FAULTS
    return exit_code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
