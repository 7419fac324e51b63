"""`ostiary keys import` and `ostiary keys export`: many keys at once, as files of JSON lines or CSV."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.cli.failures import FAILED, CallRefused, ImportCutOff
from gateway.cli.key_doors import KeyDoor
from gateway.cli.keys import ApiOption, ConfigOption, through
from gateway.cli.output import Output, OutputOption, show_list, show_one
from gateway.control.import_rows import FileFormat

SUFFIXES = {".csv": FileFormat.CSV, ".jsonl": FileFormat.JSONL, ".ndjson": FileFormat.JSONL}
EXPORTED = (
    "id", "tenant_id", "user_id", "name", "prefix", "environment", "scopes", "status", "created_at", "last_used_at",
    "expires_at", "revoked_at",
)  # fmt: skip

FormatOption = Annotated[FileFormat | None, typer.Option("--format", help="What the file is, if not by its suffix.")]


def import_keys(
    file: Annotated[Path, typer.Argument(help="JSON lines (.jsonl) or CSV (.csv), up to 100,000 lines.", exists=True)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would come of it, and change nothing.")] = False,
    file_format: FormatOption = None,
    config: ConfigOption = None,
    api: ApiOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Import keys whose secrets exist elsewhere, by their SHA-256. Repeat it until no row is refused: exit code 0.

    A row that is there already is left as it is, so an import that was cut off is simply done again.
    """
    chosen = file_format or SUFFIXES.get(file.suffix.lower())
    if chosen is None:
        raise typer.BadParameter("name the format of this file: csv or jsonl", param_hint="--format")
    raw = file.read_bytes()

    async def do(door: KeyDoor) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return await _followed(door, raw, chosen, is_dry_run=dry_run)

    _, summary = through(config, api, do, lambda found: _tell(*found, output))
    if summary["refused"]:
        raise typer.Exit(FAILED)


async def _followed(
    door: KeyDoor, raw: bytes, file_format: FileFormat, *, is_dry_run: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows' results and the summary, with a bar on stderr meanwhile. Raises CallRefused, ImportCutOff."""
    rows: list[dict[str, Any]] = []
    with _progress() as progress:
        task = progress.add_task("keys", total=raw.count(b"\n"))
        async for line in door.import_keys(raw, file_format, is_dry_run=is_dry_run):
            if "problem" in line:
                raise CallRefused(503, line["problem"])
            if "summary" in line:
                return rows, line["summary"]
            rows.append(line)
            progress.update(task, completed=line["row"])
    raise ImportCutOff(f"{len(rows)} rows were told")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


def _tell(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps({"rows": list(rows), "summary": summary}, indent=2))
        return
    refused = [row for row in rows if row["outcome"] == "refused"]
    if refused:
        show_list(refused, ("row", "code", "message"), output)
        typer.echo("")
    show_one(summary, output)


def export(
    user: Annotated[str | None, typer.Option("--user", help="Only this user's.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")] = None,
    status: Annotated[str | None, typer.Option(help="Only active, revoked or expired ones.")] = None,
    file_format: Annotated[FileFormat, typer.Option("--format", help="How to write them.")] = FileFormat.JSONL,
    config: ConfigOption = None,
    api: ApiOption = None,
) -> None:
    """Write keys to stdout as they come, oldest first: never a secret, nor a digest of one."""
    named = {"user_id": user, "tenant_id": tenant, "status": status}
    filters = {name: value for name, value in named.items() if value is not None}
    written = _as_csv if file_format is FileFormat.CSV else _as_lines

    async def do(door: KeyDoor) -> None:
        if file_format is FileFormat.CSV:
            sys.stdout.write(",".join(EXPORTED) + "\n")
        async for page in door.pages(filters):
            sys.stdout.write(written(page))
        sys.stdout.flush()

    through(config, api, do, lambda _: None)


def _as_lines(keys: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps({name: key[name] for name in EXPORTED}) + "\n" for key in keys)


def _as_csv(keys: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([*({**key, "scopes": " ".join(key["scopes"])}[name] for name in EXPORTED)] for key in keys)
    return text.getvalue()
