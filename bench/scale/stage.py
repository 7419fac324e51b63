"""The database of a population, a Redis, an upstream, and nodes before them."""

import asyncio
from dataclasses import dataclass

import psutil

from bench.gateway_peer import Node, start_node, start_stores
from bench.measure import start_upstream
from bench.peers import CONFIGURATIONS
from bench.processes import Cores, Workshop, cpu_seconds_of
from bench.scale.population import Population

_IDLE = "client: {idle_timeout_seconds: 3600}\nplans:"


class Stage:
    """All of it ends with the workshop."""

    def __init__(self, workshop: Workshop, cores: Cores) -> None:
        self.cores = cores
        self.upstream_port = start_upstream(workshop, cores.load)
        self.addresses = start_stores(workshop)
        assert self.addresses.postgres_dsn is not None
        assert self.addresses.redis_url is not None
        self.dsn, self.redis_url = self.addresses.postgres_dsn, self.addresses.redis_url
        self.population = Population(self.dsn, workshop.directory)
        asyncio.run(self.population.begin())
        self._workshop = workshop
        self._folder = workshop.directory / "configuration"
        self._folder.mkdir(mode=0o700)
        text = (CONFIGURATIONS / "gateway.yaml").read_text().replace("plans:", _IDLE)
        (self._folder / "gateway.yaml").write_text(text)

    def node(self, *, workers: int = 1, ttl_seconds: int = 60) -> Node:
        """Start a node whose clients may wait for an hour."""
        return start_node(
            self._workshop,
            self.addresses,
            self.upstream_port,
            self.cores.proxy,
            folder=self._folder,
            workers=workers,
            ttl_seconds=ttl_seconds,
        )

    def used(self) -> "Used":
        """What the stores have used so far."""
        assert self.addresses.postgres_pid is not None
        assert self.addresses.redis_pid is not None
        return Used(cpu_seconds_of(self.addresses.postgres_pid), cpu_seconds_of(self.addresses.redis_pid))

    def connections(self) -> tuple[int, int]:
        """How many connections PostgreSQL and Redis have now."""
        ports = [int(url.rpartition(":")[2].partition("/")[0]) for url in (self.dsn, self.redis_url)]
        ends = [end.laddr for end in psutil.net_connections("tcp") if end.status == psutil.CONN_ESTABLISHED]
        postgres, redis = (sum(end[1:] == (port,) for end in ends) for port in ports)
        return postgres, redis


@dataclass(frozen=True)
class Used:
    """Seconds of CPU."""

    postgres: float
    redis: float

    def since(self, before: "Used") -> "Used":
        """What was used between the two."""
        return Used(self.postgres - before.postgres, self.redis - before.redis)
