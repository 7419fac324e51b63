"""The one request and the one reply that every peer carries."""

import json
from dataclasses import dataclass

PATH = "/orders/1729?expand=items"
USER_ID = "user_bench"
BODY_BYTES = 964


def reply_body() -> bytes:
    """Return the JSON document that the upstream answers with, exactly `BODY_BYTES` long."""
    items = [
        {"sku": f"SKU-{number:05d}", "name": f"Article number {number}", "quantity": number, "price_cents": 1999}
        for number in range(1, 11)
    ]
    document = {"id": 1729, "status": "shipped", "currency": "EUR", "items": items, "note": ""}
    missing = BODY_BYTES - len(json.dumps(document))
    document["note"] = "x" * missing
    return json.dumps(document).encode()


@dataclass(frozen=True, repr=False)
class Request:
    """A keep-alive GET with twelve headers, the secret among them; without one, eleven."""

    secret: str | None
    port: int
    path: str = PATH

    def head(self) -> bytes:
        """Return the bytes on the wire."""
        fields = [
            ("Host", f"127.0.0.1:{self.port}"),
            ("User-Agent", "orders-client/4.2 (Linux x86_64)"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "gzip, deflate, br"),
            ("Accept-Language", "en-GB,en;q=0.8,de;q=0.5"),
            ("Cache-Control", "no-cache"),
            ("Authorization", f"Bearer {self.secret}"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("Referer", "https://shop.example/account/orders"),
            ("Cookie", "theme=dark; session=8f14e45fceea167a5a36dedd4bea2543"),
            ("X-Trace", "checkout-7f3a"),
            ("Content-Type", "application/json"),
        ]
        lines = [f"GET {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields if name != "Authorization" or self.secret]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()
