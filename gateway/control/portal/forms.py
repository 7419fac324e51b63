"""What a browser has sent: a form, read once. Must not know: which one."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web
from multidict import MultiDict, MultiMapping

from gateway.control.problems import Problem, UnsupportedMediaType

FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form."""

    fields: MultiMapping[str]

    @classmethod
    def empty(cls) -> "Form":
        """One that nobody has filled in."""
        return cls(MultiDict())

    def text(self, name: str) -> str:
        """The value of a field; empty where there is none, or more than one."""
        values = self.fields.getall(name, [])
        return values[0] if len(values) == 1 else ""

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of a field, such as the boxes that are ticked."""
        return tuple(self.fields.getall(name, []))


async def read_form(request: web.Request) -> Form:
    """The form of a request. Raises UnsupportedMediaType for what is no plain form, Problem for what is no text."""
    if request.content_type != FORM:
        raise UnsupportedMediaType(
            issues=[{"place": "Content-Type", "message": f"Write {FORM}"}],
        )
    try:
        sent = await request.post()
    except (UnicodeDecodeError, LookupError) as error:  # LookupError: a charset that nobody knows
        raise Problem(f"the form cannot be read: {error}") from error
    return Form(MultiDict((name, value) for name, value in sent.items() if isinstance(value, str)))
