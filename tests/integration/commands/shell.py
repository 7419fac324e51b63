"""Commands against the stores behind a management API, or against the API itself."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.fixtures.launching import command
from tests.integration.management.world import Management

# A moment's silence of Redis is told of, on a busy machine now and then: the command goes on, and did nothing wrong.
SILENCE: Final = re.compile(
    r"^.*(?:push_channel_(?:lost|stands)|redis_(?:does_not_answer|answers_again)).*\n", re.MULTILINE
)


@dataclass
class Shell:
    """Runs commands; `door` are the options of one of the two doors."""

    world: Management
    config: Path
    door: tuple[str, ...]
    token: str

    async def run(
        self, *arguments: str, door: tuple[str, ...] | None = None, token: str | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        environment = {"OSTIARY_ADMIN_TOKEN": self.token if token is None else token}
        door = self.door if door is None else door
        result = await command(*arguments, *door, environment=environment, stdin=stdin or "")
        result.stderr = SILENCE.sub("", result.stderr)
        return result

    async def done(self, *arguments: str) -> Any:
        """The JSON of a command that must succeed."""
        result = await self.run(*arguments, "-o", "json")
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        return json.loads(result.stdout)

    async def failed(self, code: int, *arguments: str) -> str:
        """The stderr of a command that must fail with this exit code, without a traceback and without output."""
        result = await self.run(*arguments)
        assert (result.returncode, result.stdout) == (code, ""), result.stderr
        assert "Traceback" not in result.stderr
        return result.stderr


def written_config(world: Management, redis_url: str, tmp_path: Path) -> Path:
    """A configuration of the stores behind `world`."""
    path = tmp_path / "gateway.yaml"
    document = {
        "environment": "test",
        "postgres": {"dsn": world.dsn},
        "redis": {"url": redis_url},
        "keys": {"peppers": [{"id": "p", "secret": "p" * 32}, {"id": "q", "secret": "q" * 32}]},
    }
    path.write_text(yaml.safe_dump(document))
    return path
