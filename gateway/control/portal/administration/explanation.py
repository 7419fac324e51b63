"""The page that explains a decision: what would become of a request, step by step. Nothing comes of it."""

import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from gateway.auth.explanation import KeyGivenTwice, UnknownKey
from gateway.control.bodies import parse_body
from gateway.control.calls import OPERATORS
from gateway.control.explain import ExplainBody
from gateway.control.portal.administration.keys import KEY_ID
from gateway.control.portal.administration.services import Services
from gateway.control.portal.forms import Form, read_form
from gateway.control.portal.visits import Access, Page
from gateway.control.problems import InvalidBody

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class ExplanationPages:
    """A form, and the answer below it. What is typed into the field of the key is not shown again (R218)."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def pages(self) -> list[Page]:
        """What is declared here."""
        return [
            Page("GET", "/admin/explain", self.ask, Access.ADMINISTRATOR, OPERATORS),
            Page("POST", "/admin/explain", self.explain, Access.ADMINISTRATOR, OPERATORS),
        ]

    async def ask(self, request: web.Request) -> web.Response:
        """`GET /portal/admin/explain`."""
        return self._page(request, Form.empty(), {}, None)

    async def explain(self, request: web.Request) -> web.Response:
        """`POST /portal/admin/explain`."""
        form = await read_form(request)
        key = form.text("key").strip()
        wanted = {
            "method": form.text("method") or "GET",
            "path": form.text("path").strip(),
            **({"host": host} if (host := form.text("host").strip()) else {}),
            **({("key_id" if KEY_ID.fullmatch(key) else "secret"): key} if key else {}),
        }
        try:
            asked = parse_body(json.dumps(wanted).encode(), ExplainBody).model_dump()
            answer = await self._services.explain({**asked, "headers": ()})
        except InvalidBody as error:
            wrong = {_field(issue["place"]): issue["message"] for issue in error.members["issues"]}
            return self._page(request, form, wrong, None, error.status)
        except (UnknownKey, KeyGivenTwice) as error:
            return self._page(request, form, {"key": error.public}, None, error.status)
        return self._page(request, form, {}, answer)

    def _page(
        self,
        request: web.Request,
        form: Form,
        wrong: Mapping[str, str],
        answer: Mapping[str, Any] | None,
        status: int = 200,
    ) -> web.Response:
        return self._services.renderer.page(
            request,
            "admin/explain.html",
            status=status,
            form=form,
            wrong=wrong,
            answer=answer,
            methods=METHODS,
            fact=fact,
        )


def _field(place: str) -> str:
    return "key" if place in ("secret", "key_id") else place


def fact(value: Any) -> str:
    """A fact of a step, as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {fact(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(fact, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
