"""What this process holds: entries by digest, bounded, evicted by subject. Must not know: whether one may be used."""

from collections.abc import Iterator
from typing import Any, Final, TypeVar

from gateway.auth.credentials import Credential, Token
from gateway.auth.entries import Admitted, Entry, TokenEntry
from gateway.auth.refusal import Refusal
from gateway.stores.local import LocalCache
from gateway.stores.records import SecretState

E = TypeVar("E", bound=Entry)

NEGATIVE_ENTRIES: Final = 10_000  # apart from the good ones: a flood of unknown keys evicts none of them


class Held:
    """Four caches (R060): good keys and tokens, as many of each as `most`, and what was refused.

    Tokens have caches of their own: however many there are, they evict no key.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.forget_all()

    # -- for the warm door

    def known(self, credential: Credential) -> Entry | None:
        """What is held of a key. A connection's requests mostly bring the very same credential. Hot."""
        good = self._good
        if credential.epoch is good.epoch:
            return credential.entry  # type: ignore[no-any-return]  # below it was put there
        found = good.get(credential.digest)
        if found is None:
            return None if isinstance(credential, Token) else self._bad.get(credential.digest)
        credential.entry = found
        credential.epoch = good.epoch
        return found

    def known_token(self, token: Token) -> TokenEntry | None:
        """What is held of a token. Hot."""
        return self._good_tokens.get(token.digest) or self._bad_tokens.get(token.digest)

    # -- for lookups

    def get(self, digest: bytes) -> Entry | None:
        """What is held of `digest`, be it a key's or a token's."""
        return (
            self._good.get(digest)
            or self._bad.get(digest)
            or self._good_tokens.get(digest)
            or self._bad_tokens.get(digest)
        )

    def still_good(self, digest: bytes, until: float) -> Entry | None:
        """An entry past its refresh age, kept in use `until` then (monotonic) while Postgres is away (R059)."""
        entry = self.get(digest)
        if entry is not None:
            entry.warm_until = until
        return entry

    def keep(self, digest: bytes, entry: Entry) -> None:
        """Hold `entry`, in place of what was held of `digest`: a new key clears the refusal before it (R061)."""
        if isinstance(entry, TokenEntry):
            _keep(digest, entry, self._good_tokens, self._bad_tokens)
        else:
            _keep(digest, entry, self._good, self._bad)

    # -- what the view tells

    def evict(self, subjects: list[str]) -> None:
        """Forget what depends on these subjects."""
        for cache in self._caches().values():
            cache.evict(subjects)

    def forget_all(self) -> None:
        """Forget everything."""
        self._good: LocalCache[Entry] = LocalCache(self._most)  # clearing entry by entry would stop the loop
        self._bad: LocalCache[Entry] = LocalCache(NEGATIVE_ENTRIES)
        self._good_tokens: LocalCache[TokenEntry] = LocalCache(self._most)
        self._bad_tokens: LocalCache[TokenEntry] = LocalCache(NEGATIVE_ENTRIES)

    # -- looking on: none of these leaves a trace

    def peek(self, digest: bytes) -> Entry | None:
        """As `get`, for who only looks."""
        return next((entry for cache in self._caches().values() if (entry := cache.peek(digest)) is not None), None)

    def has_good(self, digest: bytes) -> bool:
        """Whether a credential is held that was good when it was looked up."""
        return digest in self._good or digest in self._good_tokens

    def digest_of(self, key_id: str) -> bytes | None:
        """The digest of the current secret of this key, if that is held, else of any secret of it that is."""
        found = None
        for cache in (self._bad, self._good):
            for digest in cache.digests_of(f"key:{key_id}"):
                entry = cache.peek(digest)
                principal = entry.verdict.principal if entry and isinstance(entry.verdict, Admitted) else None
                if found is None or (principal is not None and principal.secret_state is SecretState.CURRENT):
                    found = digest
        return found

    def sizes(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """How many entries each cache holds."""
        return (((name,), float(len(cache))) for name, cache in self._caches().items())

    def _caches(self) -> dict[str, LocalCache[Any]]:
        return {"keys": self._good, "no_keys": self._bad, "tokens": self._good_tokens, "no_tokens": self._bad_tokens}


def _keep(digest: bytes, entry: E, good: LocalCache[E], bad: LocalCache[E]) -> None:
    kept, other = (bad, good) if isinstance(entry.verdict, Refusal) else (good, bad)
    other.pop(digest, None)
    kept.put(digest, entry)
