"""How much of what was sold may be used now: the arithmetic, who shares what, and how nodes share it."""
