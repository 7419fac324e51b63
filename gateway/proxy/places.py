"""Places of a credential beside headers: the query, and a WebSocket's subprotocols. Pure.

What is found is taken out: neither the upstream nor a log of its own ever sees it (R005).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

NO_NAMES: Final[frozenset[bytes]] = frozenset()


@dataclass(frozen=True, slots=True)
class Places:
    """The configured names of query parameters, and of subprotocols behind which a key stands."""

    queries: frozenset[bytes] = NO_NAMES
    protocols: frozenset[bytes] = NO_NAMES

    def take_from_query(self, target: bytes) -> tuple[bytes, list[bytes]]:
        """The target without the configured parameters, and the values that they had.

        Names and values are percent-decoded for this; every other byte stays as it came.
        """
        path, _, query = target.partition(b"?")
        kept: list[bytes] = []
        secrets: list[bytes] = []
        for parameter in query.split(b"&"):
            name, _, value = parameter.partition(b"=")
            if _decoded(name) in self.queries:
                secrets.append(_decoded(value))
            else:
                kept.append(parameter)
        if not secrets:
            return target, secrets
        return (path + b"?" + b"&".join(kept) if kept else path), secrets

    def take_from_protocols(self, values: Iterable[bytes]) -> tuple[list[bytes], list[bytes], bytes]:
        """The offered subprotocols that are none of ours, the keys behind ours, and the name that ours had."""
        kept: list[bytes] = []
        secrets: list[bytes] = []
        marker = b""
        is_key_next = False
        for offer in (offer.strip(b" \t") for value in values for offer in value.split(b",")):
            if is_key_next:
                secrets.append(offer)
                is_key_next = False
            elif offer in self.protocols:
                marker, is_key_next = offer, True
            elif offer:
                kept.append(offer)
        if is_key_next:
            secrets.append(b"")  # a name without a key is a useless credential, not an absent one
        return kept, secrets, marker


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))
