"""Soak: half an hour of everything at once, after which the nodes hold what they held before (`make soak`).

`world` is the stores, the upstream and two nodes, one a single process and one of two workers; `traffic` the callers;
`changes` whoever changes keys; `events` reloads and restarts; `holdings` what is held, and whether that is too much.
"""
