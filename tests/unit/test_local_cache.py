from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.stores.local import LocalCache


@dataclass(frozen=True)
class Value:
    """Something to remember."""

    subjects: tuple[str, ...]
    number: int = 0


def held_for(cache: LocalCache[Value]) -> dict[str, set[bytes]]:
    """The index by subject, in one form."""
    index = cache._by_subject
    return {subject: {held} if isinstance(held, bytes) else set(held) for subject, held in index.items()}


def test_the_least_recently_used_goes_first() -> None:
    """A full cache forgets what was asked for longest ago, and its subjects with it. R060."""
    cache: LocalCache[Value] = LocalCache(2)
    cache.put(b"a", Value(("key:a",)))
    cache.put(b"b", Value(("key:b",)))
    assert cache.get(b"a") is not None
    cache.put(b"c", Value(("key:c",)))
    assert set(cache) == {b"a", b"c"}
    assert held_for(cache).keys() == {"key:a", "key:c"}


def test_a_flood_does_not_grow_it() -> None:
    """However much is put, so much is held and no more, in the index too. R060."""
    cache: LocalCache[Value] = LocalCache(100)
    for number in range(10_000):
        cache.put(number.to_bytes(4), Value((f"digest:{number}", "tenant:t")))
    assert len(cache) == 100
    assert len(cache._by_subject) == 101


def test_a_value_put_again_is_the_new_one() -> None:
    """What stood under a digest is gone with its subjects when something else is put there."""
    cache: LocalCache[Value] = LocalCache(10)
    cache.put(b"a", Value(("user:old", "tenant:t"), 1))
    cache.put(b"a", Value(("user:new", "tenant:t"), 2))
    assert cache.evict(["user:old"]) == 0
    assert cache.get(b"a") == Value(("user:new", "tenant:t"), 2)
    assert cache.evict(["user:new"]) == 1
    assert not cache._by_subject


def test_reads_change_nothing_in_the_value() -> None:
    """A read returns what was put, however often: nothing in it lives longer for being read. R043."""
    cache: LocalCache[Value] = LocalCache(10)
    value = Value(("key:a",))
    cache.put(b"a", value)
    assert all(cache.get(b"a") is value for _ in range(100))


def test_an_eviction_costs_what_it_forgets() -> None:
    """A change under many entries does not search them: only those that hang on it are touched."""
    cache: LocalCache[Value] = LocalCache(1000)
    for number in range(1000):
        cache.put(number.to_bytes(4), Value((f"key:{number}", f"user:{number % 10}")))
    assert cache.evict(["key:5"]) == 1
    assert cache.evict(["user:5"]) == 99
    assert cache.evict(["user:5", "nobody:x"]) == 0
    assert len(cache) == 900


@pytest.mark.parametrize("order", [("user:u", "key:a"), ("key:a", "user:u"), ("key:a", "key:a")])
def test_an_entry_named_twice_is_forgotten_once(order: tuple[str, ...]) -> None:
    """Subjects that overlap are no trouble."""
    cache: LocalCache[Value] = LocalCache(10)
    cache.put(b"a", Value(("key:a", "user:u")))
    assert cache.evict(order) == 1
    assert not cache._by_subject


DIGESTS = st.sampled_from([bytes([number]) for number in range(14)])
SUBJECTS = st.sampled_from(["key:1", "key:2", "user:1", "tenant:1", "plan:1"])


class CacheAgainstModel(RuleBasedStateMachine):
    """In any order of calls it holds what a dictionary in order of use would, and no more. R043 R060."""

    @initialize(size=st.integers(1, 14))
    def begin(self, size: int) -> None:
        self.size = size
        self.cache: LocalCache[Value] = LocalCache(size)
        self.model: dict[bytes, Value] = {}
        self.number = 0

    @rule(digest=DIGESTS, subjects=st.lists(SUBJECTS, max_size=4))
    def put(self, digest: bytes, subjects: list[str]) -> None:
        self.number += 1
        value = Value(tuple(subjects), self.number)
        self.cache.put(digest, value)
        self.model.pop(digest, None)
        if len(self.model) == self.size:
            del self.model[next(iter(self.model))]
        self.model[digest] = value

    @rule(digest=DIGESTS)
    def get(self, digest: bytes) -> None:
        expected = self.model.pop(digest, None)
        if expected is not None:
            self.model[digest] = expected
        assert self.cache.get(digest) == expected

    @rule(digest=DIGESTS)
    def pop(self, digest: bytes) -> None:
        assert self.cache.pop(digest, None) == self.model.pop(digest, None)

    @rule(subjects=st.lists(SUBJECTS, max_size=3))
    def evict(self, subjects: list[str]) -> None:
        gone = {digest for digest, value in self.model.items() if set(subjects) & set(value.subjects)}
        assert self.cache.evict(subjects) == len(gone)
        for digest in gone:
            del self.model[digest]

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @invariant()
    def is_alike(self) -> None:
        if not hasattr(self, "cache"):
            return
        assert {digest: self.cache._Cache__data[digest] for digest in self.cache} == self.model  # type: ignore[attr-defined]
        assert len(self.cache) == len(self.model) <= self.size
        assert held_for(self.cache) == index_of(self.model.items())

    def teardown(self) -> None:
        """Once everything is gone, nothing of it is left in the index."""
        if hasattr(self, "cache"):
            self.cache.evict([subject for value in self.model.values() for subject in value.subjects])
            for digest in list(self.cache):
                del self.cache[digest]
            assert not self.cache._by_subject
            assert self.cache.currsize == 0


def index_of(items: Iterable[tuple[bytes, Value]]) -> dict[str, set[bytes]]:
    """Which digests hang on which subject."""
    index: dict[str, set[bytes]] = {}
    for digest, value in items:
        for subject in value.subjects:
            index.setdefault(subject, set()).add(digest)
    return index


TestCacheAgainstModel = CacheAgainstModel.TestCase
TestCacheAgainstModel.settings = settings(max_examples=150, stateful_step_count=50)
