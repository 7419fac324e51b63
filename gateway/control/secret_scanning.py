"""Reports of leaked keys by GitHub's secret scanning partner programme. Who reports is told by a signature alone.

What is reported is public already. So each token is looked up whatever its shape, and a key that is found is contained
as an administrator would do it, or only put on record, as the operator wants it.
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Sequence
from typing import Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from gateway.consistency.confirmation import RevocationPending
from gateway.control import answers
from gateway.control.admin_tokens import Administrator, Role
from gateway.control.bodies import read_raw
from gateway.control.calls import Call
from gateway.control.containment import Containment
from gateway.control.deeds import Deed, Origin
from gateway.control.github_keys import GithubKeys, KeySourceUnavailable, is_signed
from gateway.control.key_parts import READ_SECONDS, KeyParts, shown_key
from gateway.control.problems import InvalidBody, NotFound, PayloadTooLarge, Problem, reply, request_id_of
from gateway.errors import StoreUnavailable
from gateway.stores.postgres import keys as sql
from gateway.stores.postgres.connection import Connection

KEY_HEADER: Final = "Github-Public-Key-Identifier"
SIGNATURE_HEADER: Final = "Github-Public-Key-Signature"
LARGEST_BODY_BYTES: Final = 2**20
BODY_SECONDS: Final = 10.0
AT_ONCE: Final = 8  # keys that are contained at the same time
LONGEST_REASON: Final = 200
SENDER: Final = "github-secret-scanning"

Action = Literal["revoke", "report"]


class InvalidSignature(Problem):
    """The message is not signed by GitHub."""

    code = "invalid_signature"
    status = 403
    public = "This message is not signed by a key of the sender that it claims to have."


class BodyTooSlow(Problem):
    """The body did not come in time."""

    code = "request_timeout"
    status = 408
    public = "The body did not arrive in time."


class Report(BaseModel):
    """One leaked token. Fields that are not known are passed over: they are GitHub's to add."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    token: str
    type: str = ""
    url: str | None = None
    source: str | None = None


_REPORTS: Final = TypeAdapter(list[Report])


class SecretScanning:
    """What is done about reports."""

    def __init__(self, parts: KeyParts, containment: Containment, action: Action) -> None:
        self._parts = parts
        self._containment = containment
        self._action = action
        self._counter = parts.metrics.leak_reports

    async def take(self, reports: Sequence[Report], origin: Origin) -> list[dict[str, str]]:
        """Contain, or put on record, every key that is among them; GitHub's answer: which were real.

        Raises StoreUnavailable; what was done by then stays, and a repeat does the rest.
        """
        found = await self._found(reports)
        caller = Administrator(SENDER, Role.OPERATOR, None, origin)
        reasons: dict[str, str] = {}
        for report, key_id in zip(reports, found, strict=True):
            if key_id is not None:
                reasons.setdefault(key_id, reason_of(report))
        turns = asyncio.Semaphore(AT_ONCE)

        async def handle(key_id: str, reason: str) -> None:
            # One that is pending is committed, and relays see it through; one that is deleted admits nobody.
            async with turns:
                with contextlib.suppress(RevocationPending, NotFound):
                    await (self._contain if self._action == "revoke" else self._note)(caller, key_id, reason)
            self._counter.labels("revoked" if self._action == "revoke" else "noted").inc()

        handled = await asyncio.gather(*(handle(*one) for one in reasons.items()), return_exceptions=True)
        for outcome in handled:
            if isinstance(outcome, BaseException):
                raise outcome
        self._counter.labels("unknown").inc(sum(key_id is None for key_id in found))
        return [
            {
                "token_hash": hashlib.sha256(report.token.encode()).hexdigest(),
                "token_type": report.type,
                "label": "false_positive" if key_id is None else "true_positive",
            }
            for report, key_id in zip(reports, found, strict=True)
        ]

    async def _found(self, reports: Sequence[Report]) -> list[str | None]:
        """The id of the key, whatever its state, behind each token."""
        forms = [self._parts.peppers.candidates(hashlib.sha256(one.token.encode()).digest()) for one in reports]
        wanted = [form for of_token in forms for form in of_token]
        known = await self._parts.postgres.run(
            lambda c: sql.key_ids_of_digests(c, wanted), seconds=READ_SECONDS, is_read=True
        )
        return [next((known[form] for form in of_token if form in known), None) for of_token in forms]

    async def _contain(self, caller: Administrator, key_id: str, reason: str) -> None:
        await self._containment.contain(caller, key_id, reason)

    async def _note(self, caller: Administrator, key_id: str, reason: str) -> None:
        target = f"key:{key_id}"

        async def work(connection: Connection) -> Deed:
            key = await sql.lock(connection, key_id, None)
            if key is None:
                raise NotFound(key_id)
            shown = shown_key(key)
            return Deed("key.leak_reported", target, key.tenant_id, shown, {**shown, "leak": reason}, {})

        await self._parts.mutations.apply(work, caller=caller, target=target, is_narrowing=False)


class SecretScanningCalls:
    """The handler of `/v1/secret-scanning`. It needs no admin token: the signature stands for one."""

    def __init__(self, scanning: SecretScanning, keys: GithubKeys, parts: KeyParts) -> None:
        self._scanning = scanning
        self._keys = keys
        self._refused = parts.metrics.leak_reports.labels("refused")

    def calls(self) -> tuple[Call, ...]:
        """What is declared here."""
        return (
            Call(
                method="POST",
                path="/v1/secret-scanning/github",
                handler=self.github,
                roles=None,
                about="Take a report of leaked keys that GitHub has signed",
                raw_types=("application/json",),
                answer=answers.LeakLabels,
                problems=(
                    InvalidSignature,
                    InvalidBody,
                    PayloadTooLarge,
                    BodyTooSlow,
                    KeySourceUnavailable,
                    StoreUnavailable,
                ),
            ),
        )

    async def github(self, request: web.Request) -> web.Response:
        """`POST /v1/secret-scanning/github`: nothing is read that is not signed, and nothing done about it."""
        key_id, signature = (request.headers.getall(name, []) for name in (KEY_HEADER, SIGNATURE_HEADER))
        key = await self._keys.find(key_id[0]) if len(key_id) == len(signature) == 1 else None
        if key is None:
            self._refused.inc()
            raise InvalidSignature("no signature, or by an unknown key")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                raw = await read_raw(request, LARGEST_BODY_BYTES)
        except TimeoutError:
            raise BodyTooSlow from None
        if not is_signed(raw, signature[0], key):
            self._refused.inc()
            raise InvalidSignature("not by the key that it names")
        origin = Origin("node", SENDER, "GitHub secret scanning", request.remote, request_id_of(request))
        return reply(await self._scanning.take(reports_in(raw), origin))


def reports_in(raw: bytes) -> list[Report]:
    """What a signed body reports. Raises InvalidBody."""
    try:
        return _REPORTS.validate_json(raw)
    except ValidationError:
        raise InvalidBody([{"place": "", "message": "Write a JSON array of reports, each with a token"}]) from None


def reason_of(report: Report) -> str:
    """Where it was found, for the record: without the token, should the address hold it, and fit for a line."""
    place = report.url or "an address that is not told"
    text = f"found by GitHub secret scanning ({report.source or 'unknown'}) at {place}"
    return re.sub(r"[^ -~]", "?", text.replace(report.token, "...") if report.token else text)[:LONGEST_REASON]
