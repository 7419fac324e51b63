"""What a client got, and how two answers are compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.fixtures.upstream import RecordedRequest

Headers = tuple[tuple[str, str], ...]

# The only fields in which an answer through the gateway may differ from a direct one, and why.
GATEWAY_OWNS: Mapping[str, str] = {
    "connection": "speaks of one hop alone (RFC 9110 7.6.1)",
    "x-request-id": "added by the gateway (R030)",
    "date": "the upstream's, but two calls are two moments; that it is relayed as it came is compared on the wire",
}


@dataclass(frozen=True)
class Answer:
    """A reply as it arrived: the body without its transfer coding, and not decoded otherwise."""

    status: int
    reason: str
    headers: Headers
    body: bytes = field(repr=False)
    version: str = "HTTP/1.1"

    def all(self, name: str) -> list[str]:
        """Every value of the header, in order; the name in any case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The header's value, None where it is absent. More than one fails the test."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def relayed(self) -> tuple[int, str, list[tuple[str, str]], bytes]:
        """All that has to be equal: status, reason, body, and every header that the gateway does not own.

        The order of headers with different names means nothing (RFC 9110 5.3), that of one name's lines does.
        """
        headers = [pair for pair in self.headers if pair[0].lower() not in GATEWAY_OWNS]
        return self.status, self.reason, sorted(headers, key=lambda pair: pair[0]), self.body


def parse_head(head: bytes) -> tuple[str, Headers]:
    """The first line and the header fields of a head without its empty line."""
    first, *lines = head.decode("latin-1").split("\r\n")
    return first, tuple((name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines))


def parse(raw: bytes, *, is_head: bool = False) -> Answer:
    """The final reply in `raw`, which holds nothing else but interim ones before it; `is_head` where HEAD was asked."""
    head, _, body = raw.partition(b"\r\n\r\n")
    start, headers = parse_head(head)
    version, status, reason = start.split(" ", 2)
    if status.startswith("1"):
        return parse(body, is_head=is_head)
    answer = Answer(int(status), reason, headers, body, version)
    if answer.header("Transfer-Encoding") == "chunked" and not is_head:
        return Answer(int(status), reason, headers, unchunked(body), version)
    return answer


def parse_request(raw: bytes) -> RecordedRequest:
    """The one request in `raw`."""
    head, end, body = raw.partition(b"\r\n\r\n")
    line, headers = parse_head(head)
    method, target, _ = line.split(" ")
    request = RecordedRequest(method, target, headers, body, head + end)
    if request.header("Transfer-Encoding") == "chunked":
        return RecordedRequest(method, target, headers, unchunked(body), head + end)
    return request


def unchunked(data: bytes) -> bytes:
    """The payload of a chunked body that must be complete, and end where `data` does."""
    payload = bytearray()
    position = 0
    while True:
        end = data.index(b"\r\n", position)
        size = int(data[position:end], 16)
        position = end + 2 + size + 2
        assert data[position - 2 : position] == b"\r\n", "a chunk without its end"
        if not size:
            assert position == len(data), "bytes behind the last chunk"
            return bytes(payload)
        payload += data[end + 2 : position - 2]
