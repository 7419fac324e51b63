"""Lines to copy that use a new key at once: for a shell, for Python and for JavaScript."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.control.public import WHOAMI
from gateway.settings import CredentialPlace

AUTHORIZATION = "Authorization"


@dataclass(frozen=True, slots=True)
class Line:
    """One way to send a key. `text` shows it."""

    language: str
    text: str = field(repr=False)


class ReadyLines:
    """Writes them for a gateway at `url`, where keys may stand at `places`."""

    def __init__(self, url: str, places: Iterable[CredentialPlace]) -> None:
        headers = [place.header for place in places if place.header is not None]
        standard = [header for header in headers if header.lower() == AUTHORIZATION.lower()]
        self._header = (standard or headers or [AUTHORIZATION])[0]
        self._url = f"{url}{WHOAMI}"

    def of(self, secret: str) -> list[Line]:
        """The lines, which show who is calling."""
        value = f"Bearer {secret}" if self._header.lower() == AUTHORIZATION.lower() else secret
        url, headers = json.dumps(self._url), json.dumps({self._header: value})
        return [
            Line("curl", f"curl -H '{self._header}: {value}' {self._url}"),
            Line(
                "Python",
                "from urllib.request import Request, urlopen\n\n"
                f"request = Request({url}, headers={headers})\n"
                "print(urlopen(request).read().decode())",
            ),
            Line(
                "JavaScript",
                f"const answer = await fetch({url}, {{ headers: {headers} }});\nconsole.log(await answer.json());",
            ),
        ]
