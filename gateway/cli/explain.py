"""`ostiary explain`: what would become of a request, step by step, as a running gateway decides it."""

import getpass
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from gateway.cli.api import read_token, through_api
from gateway.cli.failures import told
from gateway.cli.output import Output, OutputOption, log_to_stderr
from gateway.configuration import load

MARKS = {"passed": ("ok", "green"), "failed": ("no", "red"), "noted": ("--", "dim")}
# What a key, an admin token or an access token looks like, wherever it stands.
SECRET = re.compile(r"[a-z0-9-]+(?:_[a-z0-9-]+)?_[0-9A-Za-z]{32,}|[\w-]{8,}\.[\w-]{8,}\.[\w-]*", re.ASCII)
CREDENTIALS = frozenset({"authorization", "x-api-key", "cookie"})
NEVER_HERE = "leave secrets out of the command line: --secret reads one from stdin"


def explain(
    path: Annotated[str, typer.Argument(help="Path and query of the request.", metavar="PATH")],
    method: Annotated[str, typer.Option("-X", "--method", help="Its method.")] = "GET",
    host: Annotated[str, typer.Option("--host", help="The host that it is for.")] = "localhost",
    header: Annotated[list[str] | None, typer.Option("-H", "--header", help="`Name: value`. Repeat for more.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="The client's address.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="The id of the key that sends it.")] = None,
    secret: Annotated[bool, typer.Option("--secret", help="Read the key itself, or a token, from stdin.")] = False,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="The configuration of the gateway to ask, on this machine.")
    ] = None,
    api: Annotated[str | None, typer.Option("--api", help="URL of the management API of the gateway to ask.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Explain a decision: every step, what each cache holds, and what would go upstream. Nothing is changed by it.

    Needs an operator's token, in OSTIARY_ADMIN_TOKEN or on stdin. Secrets are never taken from the command line, which
    others can see: with --secret, write the key to stdin (after the admin token, if that stands there too).
    """
    log_to_stderr()
    if (config is None) == (api is None):
        raise typer.BadParameter("name one of -c FILE and --api URL", param_hint="-c, --api")
    if key is not None and secret:
        raise typer.BadParameter("name the key or give its secret, not both", param_hint="--key, --secret")
    if SECRET.search(path) is not None:
        raise typer.BadParameter(NEVER_HERE, param_hint="PATH")
    question: dict[str, Any] = {"method": method, "path": path, "host": host, "headers": dict(map(_pair, header or []))}
    question |= {name: value for name, value in (("address", address), ("key_id", key)) if value is not None}
    url = api or _url_of(config)
    token = read_token()
    if secret:
        question["secret"] = _read_secret()
    with told():
        _show(through_api(url, token, lambda opened: opened.call("POST", "/v1/explain", body=question)), output)


def _pair(header: str) -> tuple[str, str]:
    name, colon, value = header.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter("write `Name: value`", param_hint="-H")
    if name.strip().lower() in CREDENTIALS or SECRET.search(header) is not None:
        raise typer.BadParameter(NEVER_HERE, param_hint="-H")
    return name.strip(), value.strip()


def _url_of(config: Path | None) -> str:
    assert config is not None
    address = load(config).listen.admin
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"


def _read_secret() -> str:
    secret = (getpass.getpass("Key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not secret:
        raise typer.BadParameter("write the key to stdin", param_hint="--secret")
    return secret


def _show(answer: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(answer, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(step["step"]) for step in answer["steps"])
    for step in answer["steps"]:
        mark, style = MARKS[step["outcome"]]
        line = Text.assemble((mark, style), f"  {step['step']:<{width}}  {step['text']}")
        facts = _facts(step["facts"])
        console.print(line.append(f"  ({facts})", "dim") if facts else line)
    decision = answer["decision"]
    code = " ".join(str(part) for part in (decision["outcome"], decision["status"], decision["code"]) if part)
    console.print(Text(f"\n{code}: {decision['title']}", style="bold"))
    forwarded, headers = answer["forwarded"], answer["headers"]
    if forwarded is None or headers is None:
        return
    console.print(Text(f"\n{forwarded['method']} {forwarded['path']}"))
    for added in headers["added"]:
        console.print(Text(f"  + {added['name']}: {added['value']}"))
    for removed in headers["removed"]:
        console.print(Text(f"  - {removed['name']} ({removed['why']})"))


def _facts(facts: dict[str, Any]) -> str:
    """Facts on one line, without those that say nothing."""
    return ", ".join(f"{name}={_fact(value)}" for name, value in facts.items() if value not in (None, [], {}))


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + " ".join(f"{name}={_fact(one)}" for name, one in value.items() if one not in (None, [])) + "}"
    if isinstance(value, list):
        return ",".join(_fact(one) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
