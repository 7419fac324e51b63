"""Express Gateway, a gateway of Node's, from npm."""

import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

from bench.peers.peer import CONFIGURATIONS, PLAIN, SECRET, Running, Shape, configuration
from bench.processes import Workshop, free_port
from bench.workload import USER_ID

_INSTALLED = Path(__file__).parents[2] / ".venv" / "bench" / "node_modules" / "express-gateway"
_TIMEOUT_SECONDS = 10


def _post(admin_port: int, path: str, document: dict[str, object]) -> dict[str, Any]:
    """Ask its management API for something new."""
    headers = {"Content-Type": "application/json"}
    call = urllib.request.Request(f"http://127.0.0.1:{admin_port}{path}", json.dumps(document).encode(), headers)
    with urllib.request.urlopen(call, timeout=_TIMEOUT_SECONDS) as reply:
        answer: dict[str, Any] = json.load(reply)
    return answer


class ExpressGateway:
    """Express Gateway, one process, with its key-auth policy; keys in the Redis that it emulates in memory.

    It names the caller in a field of its own, `eg-consumer-id`: to write another costs it an interpreter a request.
    """

    name = "Express Gateway"

    def version(self) -> str | None:
        """Return its version, if it and Node are installed."""
        manifest = _INSTALLED / "package.json"
        if shutil.which("node") is None or not manifest.exists():
            return None
        return str(json.loads(manifest.read_text())["version"])

    def can(self, shape: Shape) -> bool:
        """Whatever it is."""
        return True

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        """Start one process and have it make one user with one key."""
        port, admin_port = free_port(), free_port()
        paths = {f"route-{number}": f"{prefix}/*" for number, prefix in enumerate(shape.prefixes)} or {"route": "/*"}
        values: dict[str, object] = {
            "LISTEN": self._listen(port, shape),
            "ADMIN_PORT": admin_port,
            "UPSTREAM_PORT": upstream_port,
            "API_ENDPOINTS": json.dumps({name: {"paths": path} for name, path in paths.items()}),
            "NAMES": json.dumps(list(paths)),
        }
        for name in ("gateway.config.yml", "system.config.yml"):
            configuration(name, workshop, values, CONFIGURATIONS / "express_gateway")
        shutil.copytree(_INSTALLED / "lib" / "config" / "models", workshop.directory / "models")
        process = workshop.start(
            "express gateway",
            ["node", str(_INSTALLED / "lib" / "index.js")],
            core=core,
            env={
                "EG_CONFIG_DIR": str(workshop.directory),
                "EG_DISABLE_CONFIG_WATCH": "true",
                "LOG_LEVEL": "error",
                "NODE_ENV": "production",
            },
        )
        process.wait_for_port(port)
        process.wait_for_port(admin_port)
        user = _post(admin_port, "/users", {"username": USER_ID, "firstname": "Bench", "lastname": "Bench"})
        credential = {"keyId": "bench", "keySecret": SECRET}
        _post(admin_port, "/credentials", {"consumerId": USER_ID, "type": "key-auth", "credential": credential})
        return Running(port, process, f"bench:{SECRET}", identity_field=f"eg-consumer-id: {user['id']}")

    def _listen(self, port: int, shape: Shape) -> str:
        if shape.certificate is None:
            return json.dumps({"http": {"hostname": "127.0.0.1", "port": port}})[1:-1]
        files = {"cert": str(shape.certificate.chain), "key": str(shape.certificate.key)}
        listener = {"hostname": "127.0.0.1", "port": port, "tls": {"default": files}}
        return json.dumps({"https": listener})[1:-1]
