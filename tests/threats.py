"""Known ways in which gateways of this kind were broken, and which tests show that this one is not.

A test that proves a row is marked `@pytest.mark.threat("row", ...)`. The marks are read from the source, so that what
is proven does not depend on which part of the suite is run, nor by how many processes.
`python -m tests.threats` writes docs/threats.md.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent
DOCUMENT: Final = TESTS.parent / "docs" / "threats.md"
MARK: Final = "threat"


@dataclass(frozen=True)
class Row:
    """A way of breaking in: its name, whose it is, what the attacker does, and what has to happen instead."""

    name: str
    attacker: str
    way: str
    defence: str


ROWS: Final = (
    Row(
        "content-length against transfer-encoding",
        "a client, behind other proxies or in front of an upstream",
        "A request whose end two readers put in two places, so that what follows is a request for one of them alone",
        "Refused and closed: both framings at once, a coding that is not exactly `chunked`, a length that is not one"
        " plain number, and every near miss. What goes on has one framing, written anew",
    ),
    Row(
        "chunk lines",
        "a client",
        "Chunk sizes, line ends and extensions that readers cut in different places",
        "CRLF alone ends a line, sizes are plain hexadecimal; no line of the client's coding travels, extensions go",
    ),
    Row(
        "trailers",
        "a client, or an upstream",
        "Identity, credentials or framing behind the body, where a careless reader merges them into the head",
        "A request's trailers are read and dropped; a reply's lose what frames, routes, authenticates or identifies",
    ),
    Row(
        "unread body after an early answer",
        "a client",
        "A refused request whose body holds another request, with a good key",
        "What was not read is never parsed: the connection ends with the refusal",
    ),
    Row(
        "upgrade without a switch",
        "a client, or an upstream that helps it",
        "Bytes sent behind an upgrade as if the tunnel stood, or an upstream that only pretends to switch",
        "A tunnel after a 101 that answers this very handshake, and not before; anything else is an ordinary exchange",
    ),
    Row(
        "h2c upgrade",
        "a client",
        "An upgrade to cleartext HTTP/2, whose requests would pass unseen",
        "Never forwarded: it goes on as the ordinary request it is, without its upgrade fields",
    ),
    Row(
        "CONNECT",
        "a client",
        "A tunnel to an address of the client's choice, or a target in authority form that desynchronises readers",
        "405 and close; nothing behind it is read",
    ),
    Row(
        "forged identity",
        "a client, with a key of its own or none",
        "Identity headers of the client's own, in spellings that an upstream cannot tell from ours",
        "Every name that folds to one of ours is taken out, on every route; then ours are set",
    ),
    Row(
        "Connection takes our fields away",
        "a client",
        "Naming identity, credential or framing fields in Connection, to have them removed on the way",
        "Connection is applied to the client's own fields, first; what the gateway adds comes afterwards",
    ),
    Row(
        "path of two readings",
        "a client",
        "A path that the gateway matches as one resource and the upstream, decoding once more, serves as another",
        "Matched, judged and forwarded as the same bytes; what decodes to something else is refused",
    ),
    Row(
        "Host as a lever",
        "a client",
        "A Host or an absolute target that makes the gateway see another path, or call another address",
        "One Host of the grammar; upstream addresses come from the configuration alone",
    ),
    Row(
        "SQL in the key",
        "a client without a key",
        "A key that is a piece of a statement",
        "What has not the shape of a key asks nobody; the rest is looked up by its digest, bound as a parameter",
    ),
    Row(
        "failure taken for admission",
        "a client, while stores fail; or who makes them fail",
        "A store that fails in the middle of a decision, so that the request goes on without one",
        "An outage is a 503, never a pass and never a 401; nothing is forwarded without an identity",
    ),
    Row(
        "two credentials",
        "a client with two keys, or who has another's",
        "Two keys in one request, of which one is checked and the other one used",
        "400; the same one twice is one",
    ),
    Row(
        "answer of another request",
        "a client that leaves, and the one that comes after it",
        "Clients that leave at any moment, so that an answer meant for them reaches whoever uses the connection next",
        "A connection whose call was given up is closed; a record has to name the digest that was asked for",
    ),
    Row(
        "poisoned cache entry",
        "who can write to Redis",
        "Something in Redis that is no record, another key's, forged, outdated, or made by a foreign deployment",
        "A miss: Postgres decides. Records are sealed for their name and judged by their revision",
    ),
    Row(
        "flood of unknown keys",
        "clients without a key",
        "Well-formed keys that nobody has, as many and as fast as can be",
        "One lookup per key, few at a time, bounded memory; good keys are served meanwhile",
    ),
    Row(
        "herd after a cache restart",
        "nobody: a restart under load",
        "Redis is emptied under load, and every key is cold for everybody at once",
        "One lookup per key and node, few at a time; nobody hears of it",
    ),
    Row(
        "missed revocation",
        "who has a leaked key, while a node is cut off",
        "A node that is cut off from the push channel while a key is revoked",
        "Refused within the bound all the same, and for good",
    ),
    Row(
        "lookup against revocation",
        "who has a leaked key",
        "A lookup that has read the key before its revocation and remembers it afterwards",
        "What a change has overtaken is not used, in no tier",
    ),
    Row(
        "streams of a revoked key",
        "who has a leaked key",
        "A stream or socket that was opened in time and lives on",
        "Ended within the bound (WebSocket close 1008), unless the route says otherwise",
    ),
    Row(
        "clock that lies",
        "nobody, or who serves the time",
        "A node whose wall clock is wrong, or jumps",
        "Lifetimes are monotonic, ends are the database's: no mass expiry, no immortal key",
    ),
    Row(
        "time as an oracle",
        "a client that guesses keys",
        "Measuring how long refusals take, to learn how much of a guess is right",
        "Secrets are found by their digest; wrong keys take the same time whatever they share with a good one",
    ),
    Row(
        "slow clients",
        "clients, with or without a key",
        "Heads and bodies that drip, to keep connections occupied",
        "One deadline for the head, a deadline and a rate for the body; 408 and close",
    ),
    Row(
        "size bombs",
        "a client, or an upstream",
        "Lines, heads, chunk extensions, trailers and counts without end",
        "Bounded, and counted before anything is kept",
    ),
    Row(
        "Expect",
        "a client",
        "Expectations that gateway and upstream handle each in its own way",
        "`100-continue` is answered here when reading begins and never forwarded; others are 417",
    ),
    Row(
        "broken replies",
        "an upstream",
        "An upstream whose reply can be read as two, or is none",
        "502, or a cut once it has begun; the connection is not used again, and nobody gets its rest",
    ),
    Row(
        "cached refusals",
        "a cache in front, and who asks it next",
        "A cache in front that keeps somebody's refusal, or somebody's answer, for others",
        "Replies of the gateway's own are `no-store`; the upstream's caching fields are neither weakened nor invented",
    ),
    Row(
        "secrets in logs",
        "whoever reads logs, metrics or errors; a client who writes into them",
        "Keys that end in logs, metrics, errors or caches, and values that forge lines",
        "A key is known by its id; what looks like a secret is masked, controls are escaped",
    ),
    Row(
        "methods in disguise",
        "a client",
        "A method in another case, or one that echoes credentials",
        "Methods are taken to the letter; `TRACE` is 405",
    ),
    Row(
        "repeated writes",
        "nobody: a connection that dies",
        "Connections that die at the wrong moment, so that a write is done twice",
        "Repeated only where nothing was sent, or where a repeat changes nothing and no answer had begun",
    ),
    Row(
        "readers that never read",
        "clients, with or without a key",
        "Clients that ask for much and take nothing, to fill the gateway's memory",
        "The upstream is not read while its client does not read",
    ),
)
NAMES: Final = frozenset(row.name for row in ROWS)


@dataclass(frozen=True)
class Mark:
    """One use of the marker. `rows` is None where it cannot be read from the source; `test` where it marks none."""

    place: str
    test: str | None
    rows: tuple[str, ...] | None


def marks(tests: Path) -> Iterator[Mark]:
    """Every use of the marker below the folder, file by file."""
    for path in sorted(tests.rglob("*.py")):
        name = path.relative_to(tests.parent).as_posix()
        tree = ast.parse(path.read_bytes())
        marked: set[ast.AST] = set()
        for function in tree.body:
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            is_test = path.name.startswith("test_") and function.name.startswith("test_")
            for decorator in function.decorator_list:
                if isinstance(decorator, ast.Call) and _is_mark(decorator.func):
                    marked.add(decorator.func)
                    test = f"{name}::{function.name}" if is_test else None
                    yield Mark(f"{name}:{decorator.lineno}", test, _literals(decorator))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and _is_mark(node) and node not in marked:
                yield Mark(f"{name}:{node.lineno}", None, None)


def _is_mark(node: ast.AST) -> bool:
    """Whether it is `pytest.mark.threat`, or `mark.threat`."""
    is_named_so = isinstance(node, ast.Attribute) and node.attr == MARK
    return is_named_so and ast.unparse(node) in (f"pytest.mark.{MARK}", f"mark.{MARK}")


def _literals(call: ast.Call) -> tuple[str, ...] | None:
    values = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    rows = tuple(value for value in values if isinstance(value, str))
    return rows if rows and len(rows) == len(call.args) and not call.keywords else None


def mistakes(tests: Path) -> list[str]:
    """What is wrong with the marks: rows that do not exist, and marks that prove nothing."""
    found = []
    for mark in marks(tests):
        if mark.test is None or mark.rows is None:
            found.append(f"{mark.place}: a mark of a test function, with names of rows written out, and nothing else")
        else:
            found += [f"{mark.place}: no row is called {row!r}" for row in mark.rows if row not in NAMES]
    return found


def proofs(tests: Path) -> dict[str, list[str]]:
    """The tests of each row, in the order of their files."""
    found: dict[str, list[str]] = {row.name: [] for row in ROWS}
    for mark in marks(tests):
        for row in mark.rows or ():
            if mark.test is not None and row in found:
                found[row].append(mark.test)
    return found


def document(tests: Path) -> str:
    """The page: a table of all rows."""
    lines = [
        "# Known attacks, and where it is proven that they fail",
        "",
        "How gateways of this kind were broken before, by whom, what happens instead, and the tests that show it.",
        "This page is written from the marks of the tests (`python -m tests.threats`); the suite fails where it",
        "is not up to date, and where a row has no test.",
        "",
        "| attacker | way | defence | test |",
        "|---|---|---|---|",
    ]
    proven = proofs(tests)
    for row in ROWS:
        tests_of_row = "<br>".join(f"`{test}`" for test in proven[row.name])
        lines.append(f"| {row.attacker} | **{row.name}**: {row.way} | {row.defence} | {tests_of_row} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(TESTS))
