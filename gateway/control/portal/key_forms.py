"""Pages that make, rotate and end keys: what is asked before, and what is shown afterwards.

A secret is in the answer to the very form that asked for it, and nowhere else: no address leads to it (R361).
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from gateway.consistency.confirmation import RevocationPending
from gateway.control.bodies import RevokeBody, parse_body
from gateway.control.issuance import ApiAccessRequired, IssuanceClosed, KeyLimitReached
from gateway.control.keys import KeyRevoked, Keys
from gateway.control.me import OwnKeyBody, OwnKeys, ScopesNotGiven
from gateway.control.paths import id_in_path
from gateway.control.portal.forms import Form, read_form
from gateway.control.portal.key_pages import KeyPages
from gateway.control.portal.ready_lines import ReadyLines
from gateway.control.portal.rendering import Renderer
from gateway.control.portal.visits import Page, owner_of
from gateway.control.problems import InvalidBody, NotFound, Problem
from gateway.control.retired_secrets import RetiredSecrets
from gateway.stores.postgres.keys import DuplicateName, KeyRow

LIVES: Final = {"": "Never", "30": "30 days", "90": "90 days", "365": "1 year"}  # days, of a new key
ENDED: Final = datetime.fromtimestamp(0, UTC)  # a window that ends there has ended, by whatever clock
HOUR: Final = 3600
MOST_RETIRED: Final = 1000


@dataclass(frozen=True, slots=True)
class Grace:
    """For how long an old secret may go on."""

    seconds: int
    text: str


def graces(default_seconds: int) -> list[Grace]:
    """What can be chosen, the configured time first."""
    offered = dict.fromkeys((default_seconds, HOUR, 24 * HOUR, 7 * 24 * HOUR))
    return [Grace(seconds, _length(seconds)) for seconds in offered if seconds > 0]


def _length(seconds: int) -> str:
    for size, unit in ((24 * HOUR, "day"), (HOUR, "hour"), (60, "minute")):
        if seconds % size == 0 and (seconds > size or unit != "day"):
            number = seconds // size
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{seconds} seconds"


class KeyForms:
    """The pages on which keys are changed. `grace_seconds` is the configured time."""

    def __init__(
        self,
        keys: Keys,
        retired: RetiredSecrets,
        own: OwnKeys,
        shown: KeyPages,
        lines: ReadyLines,
        renderer: Renderer,
        grace_seconds: int,
    ) -> None:
        self._keys = keys
        self._retired = retired
        self._own = own
        self._shown = shown
        self._lines = lines
        self._renderer = renderer
        self._graces = graces(grace_seconds)

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [
            Page("GET", "/keys/new", self.ask_new),
            Page("POST", "/keys/new", self.create),
            Page("GET", "/keys/{id}/rotate", self.ask_rotate),
            Page("POST", "/keys/{id}/rotate", self.rotate),
            Page("GET", "/keys/{id}/revoke", self.ask_revoke),
            Page("POST", "/keys/{id}/revoke", self.revoke),
            Page("POST", "/keys/{id}/secrets/{secret}/finish", self.finish),
        ]

    # -- a new key

    async def ask_new(self, request: web.Request) -> web.Response:
        """`GET /portal/keys/new`. What would refuse the key is said here, before anybody fills in anything (R366)."""
        return await self._new(request, Form.empty(), {})

    async def _new(self, request: web.Request, form: Form, wrong: dict[str, str], *, status: int = 200) -> web.Response:
        caller = owner_of(request)
        assert caller.user_id is not None
        outlook = await self._own.outlook(caller.user_id)
        return self._renderer.page(
            request,
            "new_key.html",
            status=status,
            outlook=outlook,
            refusal=None if outlook.refusal is None else outlook.refusal.code,
            form=form,
            wrong=wrong,
            scopes=self._own.key_scopes,
            lives=LIVES,
        )

    async def create(self, request: web.Request) -> web.Response:
        """`POST /portal/keys/new`: the only page that ever shows this secret (R218, R361)."""
        caller, form = owner_of(request), await read_form(request)
        assert caller.user_id is not None
        try:
            answer = await self._own.create(caller, caller.user_id, _wanted(form))
        except (
            InvalidBody,
            DuplicateName,
            ScopesNotGiven,
            IssuanceClosed,
            ApiAccessRequired,
            KeyLimitReached,
        ) as error:
            return await self._new(request, form, _mistakes(error), status=error.status)
        secret = answer.shown["secret"]
        return self._renderer.page(
            request, "new_secret.html", status=201, made=answer.shown, rotation=None, lines=self._lines.of(secret)
        )

    # -- rotation

    async def ask_rotate(self, request: web.Request) -> web.Response:
        """`GET /portal/keys/{id}/rotate`: what will happen, and a name to type (R364)."""
        return self._rotation(request, await self._key(request), Form.empty(), None)

    def _rotation(self, request: web.Request, key: KeyRow, form: Form, wrong: str | None) -> web.Response:
        return self._renderer.page(
            request,
            "rotate.html",
            status=200 if wrong is None else 400,
            key=key,
            form=form,
            wrong=wrong,
            graces=self._graces,
        )

    async def rotate(self, request: web.Request) -> web.Response:
        """`POST /portal/keys/{id}/rotate`: the new secret, this once, and how the rotation stands."""
        key, form = await self._key(request), await read_form(request)
        if form.text("confirm").strip() != key.name:
            return self._rotation(request, key, form, "Type the name of the key, as it stands above.")
        offered = {str(grace.seconds): grace.seconds for grace in self._graces}
        grace_seconds = offered.get(form.text("grace"), self._graces[0].seconds)
        caller = owner_of(request)
        answer = await self._keys.rotate(caller, key.id, grace_seconds, replaces=form.text("replaces"))
        after = await self._keys.find(caller, key.id)
        return self._renderer.page(
            request,
            "new_secret.html",
            made=answer.shown,
            rotation=(await self._shown.rotations(caller, [after])).get(key.id),
            lines=self._lines.of(answer.shown["secret"]),
        )

    async def finish(self, request: web.Request) -> web.Response:
        """`POST /portal/keys/{id}/secrets/{secret}/finish`: the old secret ends now, everywhere."""
        caller, key = owner_of(request), await self._key(request)
        secret_id = id_in_path(request, "secret")
        listed = await self._retired.page(caller, key.id, limit=MOST_RETIRED)
        if secret_id not in {one.id for one in listed}:
            raise NotFound(f"no retired secret {secret_id!r} of {key.id}")
        try:
            answer = await self._retired.set_window(caller, secret_id, ENDED)
        except RevocationPending as pending:
            return self._ended(request, "finish", key, None, pending)
        return self._ended(request, "finish", key, answer.shown["propagation"])

    # -- the end

    async def ask_revoke(self, request: web.Request) -> web.Response:
        """`GET /portal/keys/{id}/revoke`: what cannot be undone, and what goes with it (R363)."""
        return self._renderer.page(request, "revoke.html", key=await self._key(request))

    async def revoke(self, request: web.Request) -> web.Response:
        """`POST /portal/keys/{id}/revoke`: how far it has come; sending the form again waits on (R233)."""
        key, form = await self._key(request), await read_form(request)
        reason = parse_body(json.dumps({"reason": form.text("reason").strip() or None}).encode(), RevokeBody).reason
        try:
            answer = await self._keys.revoke(owner_of(request), key.id, reason)
        except RevocationPending as pending:
            return self._ended(request, "revoke", key, None, pending)
        return self._ended(request, "revoke", key, answer.shown["propagation"])

    def _ended(
        self,
        request: web.Request,
        what: str,
        key: KeyRow,
        propagation: dict[str, Any] | None,
        pending: RevocationPending | None = None,
    ) -> web.Response:
        response = self._renderer.page(
            request,
            "ended.html",
            status=200 if pending is None else pending.status,
            what=what,
            key=key,
            propagation=propagation,
        )
        if pending is not None:
            response.headers["Retry-After"] = str(pending.retry_after_seconds)
        return response

    async def _key(self, request: web.Request) -> KeyRow:
        """The key of the address; a revoked one only where its revocation may still be under way."""
        key = await self._keys.find(owner_of(request), id_in_path(request))
        if key.status == "revoked" and not (request.method == "POST" and request.path.endswith("/revoke")):
            raise KeyRevoked(key.id)
        return key


def _wanted(form: Form) -> OwnKeyBody:
    """The key that somebody asks for. Raises InvalidBody, as for the API."""
    days = form.text("life")
    ends = datetime.now(UTC) + timedelta(days=int(days)) if days and days in LIVES else None
    wanted = {
        "name": form.text("name"),
        "scopes": form.texts("scopes"),
        "expires_at": None if ends is None else ends.isoformat(timespec="seconds"),
    }
    return parse_body(json.dumps(wanted).encode(), OwnKeyBody)


def _mistakes(error: InvalidBody | Problem | DuplicateName) -> dict[str, str]:
    """What is wrong, by field; what is wrong with the whole is told by the page itself."""
    if isinstance(error, InvalidBody):
        return {str(issue["place"]).partition("[")[0]: issue["message"] for issue in error.members["issues"]}
    if isinstance(error, DuplicateName):
        return {
            "name": "Another key of your organisation has this name. If you have just created it and went back or"
            " reloaded: it exists, and its secret is gone. Revoke it, and choose another name."
        }
    return {"scopes": error.public} if isinstance(error, ScopesNotGiven) else {}
