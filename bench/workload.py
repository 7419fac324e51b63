"""What the requests and the replies that every peer carries are made of."""

import json
from dataclasses import dataclass

PATH = "/orders/1729?expand=items"
REPORT_PATH = "/orders/1729/report?format=json"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
USER_ID = "user_bench"
BODY_BYTES = 964
REPORT_BYTES = 16_384


def reply_body() -> bytes:
    """Return the JSON document that the upstream answers with, exactly `BODY_BYTES` long."""
    return _order_of(10, BODY_BYTES)


def report_body() -> bytes:
    """Return what it answers under `REPORT_PATH`, exactly `REPORT_BYTES` long."""
    return _order_of(180, REPORT_BYTES)


def _order_of(articles: int, length_bytes: int) -> bytes:
    items = [
        {"sku": f"SKU-{number:05d}", "name": f"Article number {number}", "quantity": number, "price_cents": 1999}
        for number in range(1, articles + 1)
    ]
    document = {"id": 1729, "status": "shipped", "currency": "EUR", "items": items, "note": ""}
    missing = length_bytes - len(json.dumps(document))
    document["note"] = "x" * missing
    return json.dumps(document).encode()


@dataclass(frozen=True, repr=False)
class Request:
    """A keep-alive GET with twelve headers, the secret among them; without one, eleven. With a body it is a POST."""

    secret: str | None
    port: int
    path: str = PATH
    trace: str = TRACE
    more: tuple[tuple[str, str], ...] = ()
    """Headers behind the twelve."""
    body: bytes = b""

    def head(self) -> bytes:
        """Return the head's bytes on the wire."""
        fields = [
            ("Host", f"127.0.0.1:{self.port}"),
            ("User-Agent", "orders-client/4.2 (Linux x86_64)"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "gzip, deflate, br"),
            ("Accept-Language", "en-GB,en;q=0.8,de;q=0.5"),
            ("Cache-Control", "no-cache"),
            ("Authorization", f"Bearer {self.secret}"),
            ("traceparent", f"00-{self.trace}-00f067aa0ba902b7-01"),
            ("Referer", "https://shop.example/account/orders"),
            ("Cookie", "theme=dark; session=8f14e45fceea167a5a36dedd4bea2543"),
            ("X-Trace", "checkout-7f3a"),
            ("Content-Type", "application/json"),
            *self.more,
        ]
        if self.body:
            fields.append(("Content-Length", str(len(self.body))))
        lines = [f"{'POST' if self.body else 'GET'} {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields if name != "Authorization" or self.secret]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def whole(self) -> bytes:
        """Return the bytes on the wire, the body among them."""
        return self.head() + self.body
