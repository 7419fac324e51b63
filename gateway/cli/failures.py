"""How a command tells that it failed: what, and what to do next. Exit code 1, or 2 where the command line is wrong."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from gateway.errors import Fault, GatewayError

FAILED = 1
MISTAKEN = 2

NEXT_STEPS = {
    "already_revoked": "Nothing is left to do.",
    "already_withdrawn": "Nothing is left to do.",
    "api_access_required": "Give the user an entitlement whose features hold `api_access: true`:"
    " `ostiary users entitle <user> --plan <plan>` (PUT /v1/users/<user>/entitlement).",
    "api_unreachable": "Check the URL: it is `listen.admin` of a gateway that runs (`--api http://127.0.0.1:8081`), or"
    " the public listener for `ostiary tokens` and the status listener for `--status`.",
    "auth_unavailable": "Check that Postgres answers, and the address in `postgres.dsn`; then repeat the command."
    " `ostiary doctor -c FILE` looks at everything.",
    "duplicate_name": "Choose another --name, or revoke the key that has it: `ostiary keys list`.",
    "duplicate_tenant": "Look at it: `ostiary tenants show <tenant>`; or choose another id.",
    "forbidden": "Use a token with the role `operator`: `ostiary admin-token create --role operator -c FILE`.",
    "import_cut_off": "Repeat the command: rows that are there already are left as they are.",
    "invalid_admin_token": "Put a valid token into OSTIARY_ADMIN_TOKEN; make one with"
    " `ostiary admin-token create --role operator -c FILE`.",
    "issuance_closed": "Rotate a key that exists; or open issuance: for the tenant by"
    " `ostiary tenants issuance <tenant> open`, for all by `keys.issuance` in the configuration.",
    "key_expired": "Create another key: `ostiary keys create`.",
    "key_limit_reached": "Revoke a key of this user: `ostiary keys list --user <user> --status active`, then"
    " `ostiary keys revoke <id>`.",
    "key_revoked": "Create another key: `ostiary keys create`.",
    "no_access_tokens": "Set up `tokens: {issuer, audience, sealing_key}` in its configuration.",
    "not_found": "Look for the id: `ostiary keys list`, `ostiary users list`, `ostiary tenants list`,"
    " `ostiary admin-token list`, `ostiary signing-keys list`.",
    "revocation_pending": "The change is made, but some node may not know it yet. Repeat the command until it is done.",
    "tenant_fixed": "Delete the user and put it into the other tenant, or choose another id.",
    "unknown_plan": "Name a plan of the configuration (`plans`), or make one: PUT /v1/plans/<plan>.",
    "unknown_tenant": "Create the tenant first: `ostiary tenants create <tenant> --name <name>`.",
}


class CallRefused(GatewayError):
    """The management API answered a problem."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status}")
        self.status = status
        self.code = str(problem.get("code", "internal_error"))
        self.public = str(problem.get("title", f"The API answered {status}."))
        self.members = problem


class ApiUnreachable(GatewayError):
    """The management API did not answer, or something else did."""

    code = "api_unreachable"

    def __init__(self, url: str, reason: str, what: str = "management API") -> None:
        super().__init__(reason)
        self.public = f"No {what} answers at {url} ({reason})."


class ImportCutOff(GatewayError):
    """The reply to an import ended before its summary."""

    code = "import_cut_off"
    public = "The import was cut off."


@contextmanager
def told() -> Iterator[None]:
    """Print the failure of the block on stderr, with the next step, and end the command."""
    try:
        yield
    except GatewayError as error:
        members: dict[str, Any] = getattr(error, "members", {})
        # Texts for the log may be shown to whoever works straight on the stores: it is the operator.
        is_public = isinstance(error, CallRefused | ApiUnreachable | ImportCutOff) or error.fault is Fault.CLIENT
        complain(f"{error.code}: {error.public}" if is_public else str(error))
        for issue in members.get("issues", []):
            print(f"  {issue.get('place') or 'input'}: {issue.get('message')}", file=sys.stderr)
        if members.get("revoked"):
            print(f"  revoked, being too many: {' '.join(members['revoked'])}", file=sys.stderr)
        if error.code in NEXT_STEPS:
            print(f"  {NEXT_STEPS[error.code]}", file=sys.stderr)
        raise typer.Exit(MISTAKEN if error.status == 400 else FAILED) from error


def complain(text: str) -> None:
    """Say on stderr what went wrong."""
    from gateway.cli.output import say

    say(f"ostiary: {text}", "red", file=sys.stderr)
