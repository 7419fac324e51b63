"""docs/faults.md: what was seen, coarse enough to be the same next time. What others do is in peers.json."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tests.faults.catalogue import Fault
from tests.faults.kinds import FAULTS
from tests.faults.permitted import ADMITTED, REFUSED, WITHOUT_ANSWER, WORDS
from tests.faults.run import Seen

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "faults.md"
PEERS_FILE: Final = Path(__file__).with_name("peers.json")
PEERS: Final = {"kong": "Kong", "envoy": "Envoy", "tyk": "Tyk"}
UNDOCUMENTED: Final = "not documented"
STEPS_SECONDS: Final = (1.0, 3.0, 10.0, 20.0)
GOOD_KINDS: Final = ("known", "token", "post", "cold", "made", "opening")
HEAD: Final = (
    *("fault", "good key, known to the node", "good key, looked up", "bad key", "streams and sockets"),
    *("refused for", "callers well again", "stores in use again"),
)
INTRODUCTION: Final = """# What faults do to callers

This page is written by `make faults` (`python -m tests.faults`), which has done all of it to real processes:
PostgreSQL, Redis, two nodes (the second of two workers), upstreams. [outages.md](outages.md) says what is meant to
happen, and where it is decided.

Each fault comes alone and lasts five seconds or more, under traffic that never pauses: good keys, access tokens,
bodies, keys that are looked up for the first time, unknown, revoked and expired ones, streams, sockets, and an
operator who makes and revokes keys. Every answer is held against what was permitted. Whatever the fault, none of
these was seen, or the page would not have been written:

* 401 or 403 for a good key;
* an unknown, revoked or expired key at an upstream, also one that was revoked or expired meanwhile;
* a request that an upstream has answered twice, an answer that belongs to another request, or to none;
* a request whose answer came and that is in no usage ([metering.md](metering.md)), or one that is there twice. Those
  that a killed worker had counted since it last wrote are the exception, and no more than those;
* a node that had to be restarted to be well again, or whose log shows a failure of its own code.

"""
LEGEND: Final = """
"200" alone: callers noticed nothing. *Refused for*: the longest time without a 200 for a good key; *as long as it
lasts* is not more than the fault and a few seconds. *Callers well again*: from the moment when it was undone to the
last answer that was not the due one. *Stores in use again*: until every process of every node used both stores, and
heard of changes through Redis. Limits on the harness's side: a `cache.ttl_seconds` of 2, `timeouts.response` of 2,
`client.head_timeout_seconds` of 2, `drain.finish_seconds` of 2, and no delay before the end. A full disk is a limit
on the size of files (`RLIMIT_FSIZE`): whoever writes gets an error, and another one than of a full disk. The clock is
that of one node, by libfaketime.

## Beside others

From their documentation, not from runs. "Not documented" says that nothing was found there. Where Ostiary keeps its
keys in PostgreSQL and copies in Redis, Kong keeps them in PostgreSQL, Tyk in Redis, and Envoy asks somebody else.

"""


def written(all_seen: Sequence[Seen]) -> str:
    """The page, of a run of all faults."""
    by_name = {seen.name: seen for seen in all_seen}
    rows = [_row(fault, by_name[fault.name]) for fault in FAULTS]
    answers = sum(seen.requests for seen in all_seen) // 1_000
    told = f"{len(FAULTS)} faults, some {answers:,},000 answers.\n"
    peers = [(name, *(_peer(PEERS[peer], said) for peer, said in row.items())) for name, row in peers_said().items()]
    return "".join(
        [
            INTRODUCTION,
            told,
            _table(HEAD, rows),
            LEGEND,
            _table(("fault", *PEERS.values()), [(_faults_of(name), *cells) for name, *cells in peers]),
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


# -- what was seen


def _row(fault: Fault, seen: Seen) -> tuple[str, ...]:
    what = "; ".join([fault.what, *seen.notes])
    longest = max((seen.longest_seconds.get(kind, 0.0) for kind in GOOD_KINDS), default=0.0)
    return (
        f"**{fault.name}**: {what}",
        _outcomes(seen, "known", "token", "post", "opening"),
        _outcomes(seen, "cold", "made"),
        _outcomes(seen, "bad"),
        "some cut off" if any(seen.outcomes.get("live", Counter())[one] for one in WITHOUT_ANSWER) else "stay",
        _longest(longest, seen.lasted_seconds),
        _rounded(seen.recovery_seconds),
        _rounded(seen.whole_seconds),
    )


def _outcomes(seen: Seen, *kinds: str) -> str:
    """What callers of these kinds got, the due answer first."""
    found = {outcome for kind in kinds for outcome in seen.outcomes.get(kind, Counter())}
    due = [outcome for outcome in (ADMITTED, REFUSED) if outcome in found]
    return "; ".join(_word(outcome) for outcome in [*due, *sorted(found - {ADMITTED, REFUSED})])


def _word(outcome: str) -> str:
    status, _, code = outcome.partition(" ")
    return WORDS.get(outcome) or (f"{status} `{code}`" if code else status)


def _longest(seconds: float, lasted_seconds: float) -> str:
    if seconds == 0.0:
        return "-"
    return "as long as it lasts" if seconds > 0.7 * lasted_seconds else _rounded(seconds)


def _rounded(seconds: float) -> str:
    step = next((step for step in STEPS_SECONDS if seconds <= step), None)
    return f"{seconds:.0f} s" if step is None else f"< {step:g} s"


# -- what others do


def peers_said() -> dict[str, dict[str, list[str] | None]]:
    document: dict[str, dict[str, list[str] | None]] = json.loads(PEERS_FILE.read_text())
    return document


def _peer(name: str, said: Sequence[str] | None) -> str:
    if said is None:
        return UNDOCUMENTED
    text, *sources = said
    return f"{text} ({', '.join(f'[{name}]({source})' for source in sources)})"


def _faults_of(peers: str) -> str:
    return ", ".join(fault.name for fault in FAULTS if fault.peers == peers)
