"""How much of everything a run has."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measures:
    """`changes`: how many narrowing ones are to be made, at least; every kind of fault has its turn as well.

    `seed` decides what is changed and hurt, and in which order; the timing differs every time.

    Writers pause between two changes for `think_seconds` on average; a fault lasts, and calm before the next one lasts,
    between these two lengths; `share_of_pairs` of the faults have another one beside them.
    """

    changes: int
    seed: int
    nodes: int = 4
    writers: int = 8
    users: int = 24
    admin_tokens: int = 150
    bound_seconds: float = 2.0
    requests_per_second: float = 250.0
    think_seconds: float = 0.02
    fault_seconds: tuple[float, float] = (0.3, 4.0)
    calm_seconds: tuple[float, float] = (3.0, 8.0)
    share_of_pairs: float = 0.3
