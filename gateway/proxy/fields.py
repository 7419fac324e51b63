"""What the header section of a request says to the gateway."""

from dataclasses import dataclass, field
from typing import Final

from gateway.auth.credentials import Credential
from gateway.auth.refusal import Refusal

ALLOWED_BYTES: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])  # in a line of a head


@dataclass(slots=True)
class Fields:
    """A header section, read. Shared by all requests of a connection that repeat it, so nobody changes it.

    `credential`, `content_length` and `request_id` are those of the section that was read; a request has its own.

    `host` is empty where an HTTP/1.0 client sent none. `credential` is what the credential reader made of the values in
    the configured places.
    """

    keeps_alive: bool
    host: bytes = b""
    credential: Credential | Refusal | None = None
    content_length: int | None = None
    is_chunked: bool = False
    forwarded: tuple[tuple[bytes, bytes], ...] = ()
    request_id: bytes | None = None
    expects_continue: bool = False
    upgrade: bytes = b""  # the protocol that the client asks to switch to, in lower case
    key_protocol: bytes = b""  # the subprotocol behind which a WebSocket client has put its key
    session: bytes = field(default=b"", repr=False)  # the portal's own cookies as a line, which is not sent on
    reserved_removed: int = 0
    twins_removed: int = 0  # those of them that only look like one of ours: X_User_Id
    is_variable: bool = True  # False where lines mean something to each other: another value needs another reading
    notes: tuple[tuple[bytes, bytes], ...] = ()  # (lower-cased name, value) of fields that are kept and looked at too

    def noted(self, name: bytes) -> bytes:
        """The value of a noted field; empty where there is not exactly one."""
        values = [value for noted, value in self.notes if noted == name]
        return values[0] if len(values) == 1 else b""
