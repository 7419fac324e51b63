"""Routes that lead into the gateway itself, and what is special about them.

The second door to a decision is where a proxy asks whether a request may pass (gateway/proxy/inquiry.py).
"""

from typing import Final

DOOR: Final = b"/.ostiary/auth"


class Door:
    """Marks the route of inquiries. Nothing is decided about the request that asks, only about the one it names."""


class Pages:
    """Marks a route to the portal. What a browser holds of a session there goes on by such a route, and by no other."""
