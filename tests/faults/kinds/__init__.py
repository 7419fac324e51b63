"""All faults, in the order of the page."""

from typing import Final

from tests.faults.catalogue import ALL, Fault
from tests.faults.kinds import clients, clocks_and_names, files, nodes, postgres, redis, upstream

IMPORTED: Final = (redis, postgres, upstream, clients, nodes, files, clocks_and_names)
PARTS: Final = ("Redis", "PostgreSQL", "both", "upstream", "clients", "node", "files", "clock and names")
FAULTS: Final[tuple[Fault, ...]] = tuple(sorted(ALL, key=lambda one: PARTS.index(one.part)))
