"""Runs a corpus of raw cases, kept outside of the repository, against a real gateway: `make conformance`.

The corpus brings its cases and its own runners (`requests/*.jsonl`, `responses/cases.jsonl`, `tools/run_*.py`), which
listen as the upstream themselves. Exit code 1 where a verdict is worse than allowed.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from gateway.embedded.keeper import Keeper
from gateway.embedded.server_process import HOST
from gateway.stores.postgres.migrate import migrate
from tests.fixtures.gateway import GatewayProcess
from tests.fixtures.planted import ENVIRONMENT, plant
from tests.fixtures.ports import free_port

ALLOWED = {"ok", "ok-soft"}
SECONDS = 2  # the limits under which the corpus has measured others
MOST_REFUSED_GOOD = 2  # `Transfer-Encoding: chunked` followed by a tab: llhttp refuses it


async def main(corpus: Path) -> int:
    """Run everything; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="ostiary-conformance-") as name:
        folder = Path(name)
        keeper = Keeper(folder / "stores", is_durable=False)
        try:
            addresses = keeper.start()
            assert addresses.postgres_dsn is not None
            await migrate(addresses.postgres_dsn)
            caller = await plant(addresses.postgres_dsn)
            upstream_port = free_port()
            config = {
                "environment": ENVIRONMENT,
                "postgres": {"dsn": addresses.postgres_dsn},
                "client": {"head_timeout_seconds": SECONDS, "body_timeout_seconds": SECONDS},
                "upstreams": {
                    "corpus": {
                        "targets": [f"http://{HOST}:{upstream_port}"],
                        "timeouts": {"connect": SECONDS, "response": SECONDS, "idle": 10 * SECONDS},
                    }
                },
                "routes": [{"name": "all", "paths": ["/"], "upstream": "corpus"}],
            }
            gateway = GatewayProcess(folder / "gateway", config)
            await gateway.start()
            try:
                return run_all(corpus, folder, gateway, upstream_port, caller.secret)
            finally:
                await gateway.stop()
        finally:
            keeper.stop()


def run_all(corpus: Path, folder: Path, gateway: GatewayProcess, upstream_port: int, secret: str) -> int:
    """Requests, replies, faults, one after another."""
    common = [
        *("--target", f"{HOST}:{gateway.proxy_port}"),
        *("--upstream-port", str(upstream_port)),
        *("--header", f"X-Api-Key: {secret}"),
        *("--name", "ostiary"),
    ]
    tools = corpus / "tools"
    cases = [
        ("run_corpus.py", [*common, "--cases", str(corpus / "requests" / "all.jsonl"), "--key", secret]),
        ("run_responses.py", [*common, "--cases", str(corpus / "responses" / "cases.jsonl")]),
    ]
    verdicts: Counter[str] = Counter()
    for tool, arguments in cases:
        out = folder / f"{tool}.jsonl"
        subprocess.run([sys.executable, str(tools / tool), *arguments, "--out", str(out)], check=True)
        for line in out.read_text().splitlines():
            result = json.loads(line)
            verdicts[result["verdict"]] += 1
            if result["verdict"] not in ALLOWED:
                print(line)
    print(dict(verdicts))
    faults = [*common, "--pid", str(gateway.pid), "--stop-signal", "TERM"]
    subprocess.run([sys.executable, str(tools / "run_faults.py"), *faults], check=True)
    bad = sum(count for verdict, count in verdicts.items() if verdict not in {*ALLOWED, "refused-good"})
    return 1 if bad or verdicts["refused-good"] > MOST_REFUSED_GOOD else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]))))
