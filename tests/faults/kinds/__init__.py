"""All faults, in the order of the page."""

from typing import Final

from tests.faults.catalogue import Fault
from tests.faults.kinds import clients, clocks_and_names, files, nodes, postgres, redis, upstream

MODULES: Final = (redis, postgres, upstream, clients, nodes, files, clocks_and_names)
FAULTS: Final = tuple(one for module in MODULES for one in vars(module).values() if isinstance(one, Fault))
