"""A caller with a good key who would rather be somebody else, or nobody; and fields of the hop."""

from bench.behaviours.stage import GET, Case, request, spoof


def _line(line: bytes) -> bytes:
    return GET + line + b"\r\n\r\n"


SPOOFS = [
    spoof("`X-User-Id: root`", _line(b"X-User-Id: root")),
    spoof("`x-uSeR-iD: root`, twice", _line(b"x-uSeR-iD: root\r\nx-uSeR-iD: root")),
    spoof("`X_User_Id: root`", _line(b"X_User_Id: root")),
    spoof("`X.User.Id: root`", _line(b"X.User.Id: root")),
    spoof("`X-User-Id : root`", _line(b"X-User-Id : root")),
    spoof("obs-fold: `X-A: b`, ` X-User-Id: root`", _line(b"X-A: b\r\n X-User-Id: root")),
    spoof("`Connection: X-User-Id`", _line(b"Connection: X-User-Id")),
    spoof(
        "`Connection: close, X-User-Id`, beside a made-up one",
        _line(b"Connection: close, X-User-Id\r\nX-User-Id: root"),
    ),
    spoof("`Connection: Authorization`", _line(b"Connection: Authorization")),
]

HOP = [
    request("`Connection: X-A` takes `X-A` away", _line(b"X-A: b\r\nConnection: X-A"), rb"\nx-a:"),
    request(
        "`Connection: Content-Length`",
        GET + b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        rb"\nconnection: *content-length",
        body=b"hello",
    ),
    request(
        "`Keep-Alive`, `Proxy-Connection`, `TE`",
        _line(b"Keep-Alive: 5\r\nProxy-Connection: a\r\nTE: trailers"),
        rb"\n(keep-alive|proxy-connection|te):",
    ),
]

GROUPS: dict[str, list[Case]] = {"Identity, with a good key": SPOOFS, "Fields of the hop": HOP}
