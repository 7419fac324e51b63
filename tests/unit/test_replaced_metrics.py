"""The metrics of a gateway that was replaced, in a process that goes on."""

import gc
import weakref

from gateway.telemetry.metrics import Metrics


class Cache:
    """Stands for what a gauge is read from."""

    def sizes(self) -> list[tuple[tuple[str, ...], float]]:
        """As `follow` wants it."""
        return [(("keys",), 7.0)]


def test_what_gauges_were_read_from_is_forgotten() -> None:
    """Also by the pages that are written after it, whose counts go on. R346."""
    cache, first = Cache(), Metrics()
    first.cache_entries.follow(cache.sizes)
    first.auth.inc("key", "local", "admitted")
    assert b'ostiary_cache_entries{cache="keys"} 7.0' in first.exposition()
    heir = first.successor()
    heir.show()
    first.hide()
    left = weakref.ref(cache)
    del cache, first
    gc.collect()
    assert left() is None
    page = heir.exposition()
    assert b"ostiary_cache_entries{" not in page
    assert b'ostiary_auth_total{kind="key",tier="local",result="admitted"} 1.0' in page
