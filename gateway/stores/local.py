"""What this process remembers: bounded, least recently used goes first, evicted by subject. No clock, no rule."""

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

from cachetools import Cache, LRUCache

LARGEST_TUPLE: Final = 8


class HasSubjects(Protocol):
    """A value that knows what it depends on (`key:<id>`, `user:<id>` ...)."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects whose change voids this value."""
        ...


V = TypeVar("V", bound=HasSubjects)


class LocalCache(LRUCache[bytes, V]):
    """An LRU of `digest -> value` that can also forget by subject.

    `evict` costs as much as it forgets, not as much as there is: a plan edited under 100,000 keys must not stop the
    loop for the keys that it does not touch. Reads never extend a value's life (R043); its deadline is in the value.

    `epoch` is another object after every change: while it is the same one, what was found is still held.
    """

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize)
        self.epoch = object()
        # Most subjects stand behind few digests, and the smallest set costs 216 bytes, the next one 728: one digest is
        # held bare, a few as a tuple.
        self._by_subject: dict[str, bytes | tuple[bytes, ...] | set[bytes]] = {}

    def get(self, digest: bytes) -> V | None:  # type: ignore[override]  # a default is never asked for
        """The value under `digest`, which becomes the most recently used; None where there is none. Hot."""
        try:
            return self[digest]
        except KeyError:
            return None

    def peek(self, digest: bytes) -> V | None:
        """As `get`, for who only looks: it is used no more recently for that."""
        return Cache.__getitem__(self, digest) if digest in self else None

    def digests_of(self, subject: str) -> tuple[bytes, ...]:
        """Under which digests values stand that depend on `subject`."""
        held = self._by_subject.get(subject)
        return () if held is None else tuple(held) if isinstance(held, set) else _few(held)

    def put(self, digest: bytes, value: V) -> None:
        """Remember `value`, in place of what stood under `digest`."""
        self.pop(digest, None)
        self[digest] = value
        self.epoch = object()
        for subject in value.subjects:
            held = self._by_subject.get(subject)
            if held is None:
                self._by_subject[subject] = digest
            elif isinstance(held, set):
                held.add(digest)
            elif digest not in (few := _few(held)):
                self._by_subject[subject] = (*few, digest) if len(few) < LARGEST_TUPLE else {*few, digest}

    def evict(self, subjects: Iterable[str]) -> int:
        """Forget every value that depends on one of `subjects`; how many there were."""
        evicted = 0
        for subject in subjects:
            for digest in self.digests_of(subject):
                del self[digest]
                evicted += 1
        return evicted

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.epoch = object()
        self._by_subject.clear()

    def __delitem__(self, digest: bytes) -> None:
        value = LRUCache.__getitem__(self, digest)
        super().__delitem__(digest)
        self.epoch = object()
        for subject in value.subjects:
            held = self._by_subject.get(subject)
            if isinstance(held, set):
                held.discard(digest)
                if not held:
                    del self._by_subject[subject]
            elif held is not None:
                left = tuple(other for other in _few(held) if other != digest)
                if left:
                    self._by_subject[subject] = left if len(left) > 1 else left[0]
                else:
                    del self._by_subject[subject]


def _few(held: bytes | tuple[bytes, ...]) -> tuple[bytes, ...]:
    return held if isinstance(held, tuple) else (held,)
