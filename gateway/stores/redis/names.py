"""The one function that makes every name in Redis: entries, channels, limits (R053, R054)."""

# A name's second part; nothing may follow it that could be read as another environment's.
SEPARATOR = ":"


def redis_name(environment: str, kind: str, *parts: str) -> str:
    """`ostiary:<environment>:<kind>:...`. Raises ValueError for an environment that could be read as two parts."""
    if not environment or SEPARATOR in environment:
        raise ValueError(f"not an environment: {environment!r}")
    return SEPARATOR.join(("ostiary", environment, kind, *parts))


def entry_name(environment: str, digest: bytes) -> str:
    """Where the finding about the secret with this SHA-256 stands."""
    return redis_name(environment, "entry", digest.hex())


def changes_channel(environment: str) -> str:
    """Where writers publish changes. The braces keep all channels on one node of a cluster."""
    return redis_name(environment, "{channel}", "changes")


def replies_channel(environment: str, writer: str) -> str:
    """Where nodes tell one writer that they have applied its changes."""
    return redis_name(environment, "{channel}", "replies", writer)
