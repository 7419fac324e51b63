"""What a proxy in front asks about: the request that it names to `/.ostiary/auth`. Pure.

It is named by header lines (`X-Forwarded-Method`, `-Uri`, `-Host`, or `X-Original-...`), or by the rest of the path
(`/.ostiary/auth/orders/42`, as Envoy does). Proxies pass what their clients send beside what they set themselves: two
names that do not say the same are refused, never chosen from. Must not know: who is asking, or what is decided.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from gateway.auth.credentials import CredentialReader
from gateway.proxy.door import DOOR
from gateway.proxy.errors import BadRequest, MethodRefused, UriTooLong
from gateway.proxy.places import Places
from gateway.proxy.remembered import Said
from gateway.proxy.request_head import REFUSED_METHODS, RequestHead, check_authority, reduce_target

METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
TARGET: Final = re.compile(rb"[\x21\x22\x24-\x7e]+")  # of a request line, and no fragment
METHOD_LINES: Final = (b"\nx-forwarded-method:", b"\nx-original-method:")
TARGET_LINES: Final = (b"\nx-forwarded-uri:", b"\nx-original-uri:", b"\nx-original-url:")
HOST_LINES: Final = (b"\nx-original-host:",)


@dataclass(frozen=True, slots=True)
class Naming:
    """How the named request is read: as one that came by itself. The limit is that of a request line."""

    credentials: CredentialReader
    places: Places
    line_limit_bytes: int

    def named(self, asking: RequestHead) -> RequestHead:
        """The request that another one names. Its `target` is empty where none is named.

        Raises BadRequest and its kin.
        """
        lines = b"\n" + asking.kept
        lowered = lines.lower()
        methods = _values(lines, lowered, METHOD_LINES)
        targets = _values(lines, lowered, TARGET_LINES)
        hosts = {value for name, value in asking.fields.forwarded if name == b"x-forwarded-host"}
        rest = asking.target[len(DOOR) :]
        is_path = rest.startswith(b"/")
        if is_path:
            methods.add(asking.method)
            targets.add(rest)
            hosts.add(asking.host)
        request = self._like(asking, _the_method(methods, asking.method), _the_only(targets, b""))
        request.host = _the_host(hosts | _values(lines, lowered, HOST_LINES), asking.host)
        if request.target:
            self._check_target(request)
            if self.places.queries and not is_path:  # whose query has been searched for a key
                request.target, secrets = self.places.take_from_query(request.target)
                request.credential = self.credentials.read_more(request.credential, secrets)
        return request

    def _like(self, asking: RequestHead, method: bytes, target: bytes) -> RequestHead:
        fields = asking.fields
        if fields.reserved_removed:  # has been counted
            fields = replace(fields, reserved_removed=0)
        said = Said(asking.kept, asking.credential, asking.content_length, asking.request_id)
        request = RequestHead(method, target, asking.is_http_11, fields, said)
        request.keeps_alive = asking.keeps_alive
        return request

    def _check_target(self, request: RequestHead) -> None:
        if len(request.target) > self.line_limit_bytes:
            raise UriTooLong("a named target over the limit")
        if TARGET.fullmatch(request.target) is None:
            raise BadRequest("a named target that is none")
        if not request.target.startswith(b"/"):
            reduce_target(request)


def _the_method(named: set[bytes], otherwise: bytes) -> bytes:
    method = _the_only(named, otherwise)
    if METHOD.fullmatch(method) is None:
        raise BadRequest("a named method that is none")
    if method in REFUSED_METHODS:
        raise MethodRefused(f"{method.decode()} is never let through")
    return method


def _the_host(named: set[bytes], otherwise: bytes) -> bytes:
    host = _the_only(named, otherwise)
    if host:
        check_authority(host)
    return host


def _the_only(named: set[bytes], otherwise: bytes) -> bytes:
    if len(named) > 1:
        raise BadRequest("one request under two names")
    return next(iter(named), otherwise)


def _values(lines: bytes, lowered: bytes, starts: tuple[bytes, ...]) -> set[bytes]:
    """The values of all lines that start so."""
    found: set[bytes] = set()
    for start in starts:
        position = lowered.find(start)
        while position >= 0:
            position += len(start)
            found.add(lines[position : lines.find(b"\r\n", position)].strip(b" \t"))
            position = lowered.find(start, position)
    return found
