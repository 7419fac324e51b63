"""`ostiary keys import` and `ostiary keys export`: many keys at once, as files of JSON lines or CSV."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from gateway.cli.doors import Door, through
from gateway.cli.failures import FAILED, CallRefused, ImportCutOff
from gateway.cli.options import (
    ApiOption,
    ConfigOption,
    Output,
    OutputOption,
    TenantOption,
    TokenFileOption,
    UserOption,
    named,
)
from gateway.cli.output import console, show_json, show_one, show_rows

if TYPE_CHECKING:
    from rich.progress import Progress

    from gateway.cli.api import Api

FileFormat = Literal["csv", "jsonl"]
SUFFIXES: Final[Mapping[str, FileFormat]] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
MEDIA_TYPES: Final[Mapping[FileFormat, str]] = {"csv": "text/csv", "jsonl": "application/x-ndjson"}
EXPORTED = (
    "id", "tenant_id", "user_id", "name", "prefix", "environment", "scopes", "status", "created_at", "last_used_at",
    "expires_at", "revoked_at",
)  # fmt: skip

FormatOption = Annotated[FileFormat | None, typer.Option("--format", help="What the file is, if not by its suffix.")]


def import_keys(
    file: Annotated[
        Path,
        typer.Argument(help="JSON lines (.jsonl) or CSV (.csv), up to 100,000 lines.", exists=True, dir_okay=False),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would come of it, and change nothing.")] = False,
    file_format: FormatOption = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Import keys whose secrets exist elsewhere, by their SHA-256. Repeat it until no row is refused: exit code 0.

    A row that is there already is left as it is, so an import that was cut off is simply done again.
    """
    chosen = file_format or SUFFIXES.get(file.suffix.lower())
    if chosen is None:
        raise typer.BadParameter("name the format of this file: csv or jsonl", param_hint="--format")
    raw, media_type = file.read_bytes(), MEDIA_TYPES[chosen]

    async def do(opened: "Api") -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return await _followed(opened, raw, media_type, is_dry_run=dry_run)

    _, summary = through(Door(config, api, token_file), do, lambda found: _tell(*found, output))
    if summary["refused"]:
        raise typer.Exit(FAILED)


async def _followed(
    opened: "Api", raw: bytes, media_type: str, *, is_dry_run: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows' results and the summary, with a bar on stderr meanwhile. Raises CallRefused, ImportCutOff."""
    rows: list[dict[str, Any]] = []
    query = {"dry_run": str(is_dry_run).lower()}
    with _progress() as progress:
        task = progress.add_task("keys", total=raw.count(b"\n"))
        async for text in opened.lines("/v1/imports", query, method="POST", file=(media_type, raw)):
            line = json.loads(text)
            if "problem" in line:
                raise CallRefused(503, line["problem"])
            if "summary" in line:
                return rows, line["summary"]
            rows.append(line)
            progress.update(task, completed=line["row"])
    raise ImportCutOff(f"{len(rows)} rows were told")


def _progress() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console(sys.stderr), disable=not sys.stderr.isatty())


def _tell(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], output: Output) -> None:
    if output is Output.JSON:
        show_json({"rows": list(rows), "summary": summary})
        return
    refused = [row for row in rows if row["outcome"] == "refused"]
    if refused:
        show_rows(refused, ("row", "code", "message"))
        print()
    show_one(summary, output)


def export(
    user: UserOption = None,
    tenant: TenantOption = None,
    status: Annotated[
        Literal["active", "revoked", "expired"] | None, typer.Option(help="Only active, revoked or expired ones.")
    ] = None,
    file_format: Annotated[FileFormat, typer.Option("--format", help="How to write them.")] = "jsonl",
    config: ConfigOption = None,
    api: ApiOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Write keys to stdout as they come, oldest first: never a secret, nor a digest of one."""
    filters = named(user_id=user, tenant_id=tenant, status=status)
    written = _as_csv if file_format == "csv" else _as_lines

    async def do(opened: "Api") -> None:
        if file_format == "csv":
            sys.stdout.write(",".join(EXPORTED) + "\n")
        async for page in opened.pages("/v1/keys", filters):
            sys.stdout.write(written(page))
        sys.stdout.flush()

    through(Door(config, api, token_file), do, lambda _: None)


def _as_lines(keys: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps({name: key[name] for name in EXPORTED}) + "\n" for key in keys)


def _as_csv(keys: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([*({**key, "scopes": " ".join(key["scopes"])}[name] for name in EXPORTED)] for key in keys)
    return text.getvalue()
