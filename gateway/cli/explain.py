"""`ostiary explain`: what would become of a request, step by step, as a running gateway decides it."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.doors import Door, admin_url, ask_secret, through
from gateway.cli.options import ApiOption, Output, OutputOption, TokenFileOption, named
from gateway.cli.output import console, show_json

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
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Explain a decision: every step, what each cache holds, and what would go upstream. Nothing is changed by it.

    Needs an operator's token, in OSTIARY_ADMIN_TOKEN or on stdin. Secrets are never taken from the command line, which
    others can see: with --secret, write the key to stdin (after the admin token, if that stands there too).
    """
    if (config is None) == (api is None):
        raise typer.BadParameter("name one of -c FILE and --api URL", param_hint="-c, --api")
    if key is not None and secret:
        raise typer.BadParameter("name the key or give its secret, not both", param_hint="--key, --secret")
    if SECRET.search(path) is not None:
        raise typer.BadParameter(NEVER_HERE, param_hint="PATH")
    question: dict[str, Any] = {"method": method, "path": path, "host": host, "headers": dict(map(_pair, header or []))}
    question |= named(address=address, key_id=key)

    def ask() -> None:
        if secret:
            question["secret"] = _read_secret()

    through(
        Door(None, api or _url_of(config), token_file),
        lambda opened: opened.call("POST", "/v1/explain", body=question),
        lambda answer: _show(answer, output),
        first=ask,
    )


def _pair(header: str) -> tuple[str, str]:
    name, colon, value = header.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter("write `Name: value`", param_hint="-H")
    if name.strip().lower() in CREDENTIALS or SECRET.search(header) is not None:
        raise typer.BadParameter(NEVER_HERE, param_hint="-H")
    return name.strip(), value.strip()


def _url_of(config: Path | None) -> str:
    from gateway.configuration import load

    assert config is not None
    return admin_url(load(config))


def _read_secret() -> str:
    secret = ask_secret("Key")
    if not secret:
        raise typer.BadParameter("write the key to stdin", param_hint="--secret")
    return secret


def _show(answer: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        show_json(answer)
        return
    from rich.text import Text

    printer = console()

    def line(*parts: tuple[str, str]) -> None:
        printer.print(Text.assemble(*parts), soft_wrap=True)

    width = max(len(step["step"]) for step in answer["steps"])
    for step in answer["steps"]:
        facts = _facts(step["facts"])
        line(
            MARKS[step["outcome"]],
            (f"  {step['step']:<{width}}  {step['text']}", ""),
            (f"  ({facts})" if facts else "", "dim"),
        )
    decision = answer["decision"]
    code = " ".join(str(part) for part in (decision["outcome"], decision["status"], decision["code"]) if part)
    style = "green" if decision["outcome"] in ("forwarded", "answered") else "red"
    line((f"\n{code}", f"bold {style}"), (f": {decision['title']}", "bold"))
    forwarded, headers = answer["forwarded"], answer["headers"]
    if forwarded is None or headers is None:
        return
    line((f"\n{forwarded['method']} {forwarded['path']}", ""))
    for added in headers["added"]:
        line((f"  + {added['name']}: {added['value']}", "green"))
    for removed in headers["removed"]:
        line((f"  - {removed['name']} ({removed['why']})", "red"))


def _facts(facts: dict[str, Any]) -> str:
    """Facts on one line, without those that say nothing."""
    return ", ".join(f"{name}={_fact(value)}" for name, value in facts.items() if value not in (None, [], {}))


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + " ".join(f"{name}={_fact(one)}" for name, one in value.items() if one not in (None, [])) + "}"
    if isinstance(value, list):
        return ",".join(_fact(one) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
