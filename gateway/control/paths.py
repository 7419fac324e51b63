"""Names in the path of a call. Must not know: what they name."""

from aiohttp import web

from gateway.control.bodies import ID_SHAPE
from gateway.control.problems import NotFound


def id_in_path(request: web.Request, name: str = "id") -> str:
    """The id in the path; a malformed one names nothing (R122, R278). Raises NotFound."""
    text = request.match_info[name]
    if ID_SHAPE.fullmatch(text) is None:
        raise NotFound("malformed id")
    return text
