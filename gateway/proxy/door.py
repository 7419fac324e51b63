"""The second door to a decision: where a proxy asks whether a request may pass (gateway/proxy/inquiry.py)."""

from typing import Final

DOOR: Final = b"/.ostiary/auth"


class Door:
    """Marks the route of inquiries. Nothing is decided about the request that asks, only about the one it names."""
