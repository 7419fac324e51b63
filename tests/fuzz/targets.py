"""What is fuzzed: the functions that take bytes and must not raise, with their seeds. `share` is of the whole time."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.fuzz import (
    asking_proxies,
    chunked_bodies,
    configurations,
    credentials,
    engine,
    frames,
    management,
    paths,
    plays,
    processes,
    providers,
    proxy_headers,
    replies,
    request_heads,
    stored,
    tokens,
)

FOLDER = Path(__file__).parent
SECONDS_PER_INPUT = 2  # more is a hang


# Takes an input, the most bytes of what it gives, a seed, and the fuzzer's own way of changing bytes.
Mutate = Callable[[bytes, int, int, Callable[[bytes, int], bytes]], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """`check` raises where a promise is broken. `tokens` are what a fuzzer would be long in finding.

    `mutate` is for inputs that have parts.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: list[bytes]
    tokens: list[bytes]
    longest_bytes: int
    share: float
    mutate: Mutate | None = None

    @property
    def corpus(self) -> Path:
        """Inputs that each reach something that no other does."""
        return FOLDER / "corpus" / self.name

    @property
    def crashes(self) -> Path:
        """Inputs that have once broken a promise."""
        return FOLDER / "crashes" / self.name


TARGETS = {
    target.name: target
    for target in (
        Target("request_heads", request_heads.check, request_heads.SEEDS, request_heads.TOKENS, 1400, 0.25),
        Target("chunked_bodies", chunked_bodies.check, chunked_bodies.SEEDS, chunked_bodies.TOKENS, 600, 0.12),
        Target("replies", replies.check, replies.SEEDS, replies.TOKENS, 800, 0.1),
        Target("paths", paths.check, paths.SEEDS, paths.TOKENS, 200, 0.06),
        Target("frames", frames.check, frames.SEEDS, frames.TOKENS, 200, 0.02),
        Target("credentials", credentials.check, credentials.SEEDS, credentials.TOKENS, 400, 0.02),
        Target("proxy_headers", proxy_headers.check, proxy_headers.SEEDS, proxy_headers.TOKENS, 260, 0.04),
        Target("tokens", tokens.check, tokens.SEEDS, tokens.TOKENS, 600, 0.04),
        Target("asking_proxies", asking_proxies.check, asking_proxies.SEEDS, asking_proxies.TOKENS, 600, 0.04),
        Target("stored", stored.check, stored.SEEDS, stored.TOKENS, 1600, 0.04),
        Target("providers", providers.check, providers.SEEDS, providers.TOKENS, 900, 0.04),
        Target("management", management.check, management.SEEDS, management.TOKENS, 600, 0.04),
        Target("configurations", configurations.check, configurations.SEEDS, configurations.TOKENS, 1200, 0.04),
        Target("processes", processes.check, processes.SEEDS, processes.TOKENS, 600, 0.02),
        Target("engine", engine.check, plays.SEEDS, plays.TOKENS, 2000, 0.35, plays.mutate),
    )
}


def file_name(data: bytes) -> str:
    """What an input's file is called."""
    return sha256(data).hexdigest()[:16]
