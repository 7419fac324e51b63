"""`ostiary tokens`: mint an access token from a key, and show what one says."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.doors import ask_secret, local_url
from gateway.cli.failures import FAILED, told
from gateway.cli.options import Output, OutputOption
from gateway.cli.output import log_to_stderr, show_one

app = typer.Typer(
    help="Access tokens: mint one from a key, show what one says.\n\nThey are revoked with their key (`ostiary keys"
    " revoke`), or all that a signing key has signed at once (`ostiary signing-keys withdraw`).",
    epilog="Example: `ostiary tokens mint --scope orders:read --url https://api.example.com < key.txt`",
    no_args_is_help=True,
)

UrlOption = Annotated[str | None, typer.Option("--url", help="The public listener of a gateway.")]
GatewayOption = Annotated[
    Path | None,
    typer.Option("-c", "--config", help="The configuration of a gateway here, in place of --url."),
]


@app.command(epilog="Example: `ostiary tokens mint --scope orders:read --expires-in 300 -c gateway.yaml < key.txt`")
def mint(
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="Of the key's. Repeat for more. Default: all that the key has.")
    ] = None,
    expires_in: Annotated[
        int | None, typer.Option(help="Seconds that it lives. Default: tokens.default_seconds.")
    ] = None,
    audience: Annotated[str | None, typer.Option(help="For whom it is. Default: the gateway itself.")] = None,
    once: Annotated[bool, typer.Option("--once", help="For one request: the first that it admits uses it up.")] = False,
    config: GatewayOption = None,
    url: UrlOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Mint a token from a key, which is asked for or read from stdin. The token is printed once."""
    import asyncio

    log_to_stderr()
    asked = {"scopes": scope or None, "expires_in": expires_in, "audience": audience, "once": once or None}
    body = {name: value for name, value in asked.items() if value is not None}
    place = _place(config, url)
    assert place is not None
    key = ask_secret("Key")
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise typer.BadParameter("write the key to stdin", param_hint="stdin")
    from gateway.cli.public_calls import mint_at

    with told():
        show_one(asyncio.run(mint_at(*place, key, body)), output)


@app.command(epilog="Example: `ostiary tokens show --url https://api.example.com < token.txt`")
def show(
    config: GatewayOption = None,
    url: UrlOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a token says, which is asked for or read from stdin. The token itself is not printed.

    With -c or --url its signature is checked by the gateway's public keys; where it is not one of theirs, or has ended,
    the exit code is 1. Whether its key still stands is told by `ostiary explain --secret`.
    """
    import asyncio

    log_to_stderr()
    place = _place(config, url, is_needed=False)
    from gateway.cli.public_calls import jwks_at, read, verified_by

    said = read(ask_secret("Token"))
    if said is None:
        raise typer.BadParameter("this is not an access token", param_hint="stdin")
    with told():
        is_signed = None if place is None else verified_by(asyncio.run(jwks_at(place[0])), said)
    is_expired = _has_ended(said.claims)
    shown = {**said.claims, "iat": _moment(said.claims.get("iat")), "exp": _moment(said.claims.get("exp"))}
    facts = {"signing_key": said.signer_id, "is_signed": is_signed, "is_expired": is_expired}
    rows = {"secret_id" if name == "secret" else name: value for name, value in shown.items()}  # no secret: its id
    show_one({**facts, **rows} if output is Output.TABLE else {**facts, "claims": shown}, output)
    if place is not None and (is_expired or not is_signed):
        raise typer.Exit(FAILED)


def _place(config: Path | None, url: str | None, *, is_needed: bool = True) -> tuple[str, str] | None:
    """Where the public listener is, and in which header it takes a key."""
    if (config is not None and url is not None) or (is_needed and config is None and url is None):
        raise typer.BadParameter("name one of -c FILE and --url URL", param_hint="-c, --url")
    if url is not None:
        return url.rstrip("/"), "Authorization"
    if config is None:
        return None
    from gateway.configuration import load

    settings = load(config)
    if settings.tokens is None:
        raise typer.BadParameter("this configuration has no `tokens`", param_hint="-c")
    headers = [place.header for place in settings.credentials if place.header is not None]
    return local_url(settings.listen.proxy, is_tls=settings.listen.tls is not None), (headers or ["Authorization"])[0]


def _has_ended(claims: dict[str, Any]) -> bool:
    ends_at = claims.get("exp")
    return not isinstance(ends_at, int | float) or ends_at <= datetime.now(UTC).timestamp()


def _moment(epoch: object) -> object:
    """A point in time for people and programs; what is none stays what it is."""
    try:
        assert isinstance(epoch, int | float)
        return datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z")
    except (AssertionError, ValueError, OverflowError, OSError):
        return epoch
