"""How an explanation is told: step by step, and without a secret in it (R218)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.auth.refusal import Refusal
from gateway.errors import GatewayError, Outage
from gateway.proxy.door import Door
from gateway.proxy.edge import AddressRule, Edge
from gateway.proxy.errors import AddressRefused, NotFound, WrongMethod
from gateway.proxy.replies import PUBLIC_TEXTS, status_of
from gateway.proxy.router import Match
from gateway.telemetry.logs import SECRET

TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")
INQUIRY: Final = {
    "outcome": "answered",
    "status": None,
    "code": None,
    "title": "The gateway answers about another request, which is explained under its own path.",
}


class Told:
    """The answer, while it is put together. `hidden` are texts that are masked wherever they stand."""

    def __init__(self, hidden: Sequence[str]) -> None:
        self.headers: dict[str, Any] | None = None
        self.is_inquiry = False  # what is asked there is another request
        self._hidden = hidden
        self._steps: list[dict[str, Any]] = []

    def step(self, name: str, passed: bool | None, text: str, facts: Mapping[str, Any] | None = None) -> None:
        """One more step; `passed` is None for one that only tells."""
        outcome = "noted" if passed is None else "passed" if passed else "failed"
        self._steps.append({"step": name, "outcome": outcome, "text": text, "facts": dict(facts or {})})

    def answer(self, said: Refusal | GatewayError | None, head: bytes | None) -> dict[str, Any]:
        """The whole of it."""
        shown: dict[str, Any] = {
            "decision": INQUIRY if self.is_inquiry else _decision(said, head),
            "steps": self._steps,
            "forwarded": None,
            "headers": self.headers,
        }
        if head:
            method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            shown["forwarded"] = {"method": method, "path": shown_target(target.encode("latin-1"))}
        masked: dict[str, Any] = self._masked(shown)
        return masked

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            for text in self._hidden:
                value = value.replace(text, "***")
            return TOKEN.sub("***", SECRET.sub(r"\1***", value))
        if isinstance(value, Mapping):
            return {name: self._masked(one) for name, one in value.items()}
        return [self._masked(one) for one in value] if isinstance(value, list) else value


def _decision(said: Refusal | GatewayError | None, head: bytes | None) -> dict[str, Any]:
    if isinstance(said, Refusal):
        title = PUBLIC_TEXTS[said.reason]
        status = status_of(said.reason)
        return {"outcome": "refused", "status": status, "code": said.reason.value, "title": title, **said.details}
    if isinstance(said, GatewayError):
        outcome = "outage" if isinstance(said, Outage) else "refused"
        return {"outcome": outcome, "status": said.status, "code": said.code, "title": said.public}
    if head:
        return {"outcome": "forwarded", "status": None, "code": None, "title": "The request is forwarded."}
    return {"outcome": "answered", "status": 204, "code": None, "title": "The gateway answers this preflight itself."}


def tell_route(told: Told, match: Match | None, said: Refusal | GatewayError | None, *, is_matched: bool) -> None:
    """The step of the route. That there is none, or not for this method, is decided after admission."""
    if not is_matched:
        told.step("route", False, f"refused as it is matched: {said}")
        return
    if match is None:
        is_final = isinstance(said, NotFound)
        told.step("route", False if is_final else None, "no route matches; that is told to callers with a key alone")
        return
    route = match.route
    if isinstance(route.early, Door):
        told.is_inquiry = True
        told.step("route", True, "where proxies ask about requests that they forward by themselves")
        return
    facts = {
        "route": route.name,
        "paths": [path.decode() for path in route.paths],
        "auth": route.access.mode,
        "require": {
            "scopes": sorted(route.access.scopes),
            "features": sorted(route.access.features),
            "tier": route.access.tier,
        },
        "tokens": route.access.tokens,
        "upstream": route.upstream,
        "strip_prefix": route.strip_prefix,
    }
    if match.allowed:
        facts["methods"] = [method.decode() for method in match.allowed]
        is_final = isinstance(said, WrongMethod)
        told.step("route", False if is_final else None, f"{route.name}, but for other methods", facts)
    else:
        told.step("route", True, route.name, facts)


def tell_address(told: Told, rule: AddressRule, edge: Edge, said: Refusal | GatewayError | None) -> None:
    """The step of the address rule."""
    facts = {"allow": [str(one) for one in rule.allow], "deny": [str(one) for one in rule.deny]}
    text = "no address was given" if edge.address is None else f"from {edge.address}"
    told.step("address", not isinstance(said, AddressRefused), text, facts)


def cache_text(tier: str | None) -> str:
    """Who has decided."""
    match tier:
        case None:
            return "nobody can tell"
        case "local":
            return "this process knows"
        case "redis":
            return "Redis knows"
        case _:
            return "PostgreSQL knows"


def code_of(said: Refusal | GatewayError | None) -> str:
    """The problem code."""
    return said.reason.value if isinstance(said, Refusal) else "admitted" if said is None else said.code


def shown_target(target: bytes) -> str:
    """A target for showing: without the values of its query, where people put secrets of their own."""
    path, question, query = target.decode("latin-1").partition("?")
    return path + question + "&".join(_names(query)) if question else path


def _names(query: str) -> Iterator[str]:
    for parameter in query.split("&"):
        name, sign, _ = parameter.partition("=")
        yield f"{name}=…" if sign else name
