"""What people are told, where a code would tell programs. By the codes of docs/errors.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Words:
    """A failure in words: what it is, and what one can do."""

    title: str
    text: str


_AWAY: Final = Words(
    "We cannot look that up right now",
    "A part of the gateway that knows about users and keys does not answer. You are still signed in, your keys have not"
    " changed, and nothing was lost. Try again in a few seconds.",
)
FAILURES: Final = {
    "signed_out": Words(
        "You are signed out", "Your session has ended, and nothing has been changed. Sign in and do it once more."
    ),
    "foreign_form": Words(
        "Nothing has been changed",
        "That form did not come from a page of your present session. If you have signed in again meanwhile, open the"
        " page anew and repeat what you did. If you did not send a form yourself, another site has tried to.",
    ),
    "sign_in_failed": Words(
        "Signing in did not work",
        "Your sign-in was not completed: it took too long, was begun in another window, or was refused. Begin again.",
    ),
    "invalid_token": Words("Signing in did not work", "The answer of your sign-in is not yet valid. Begin again."),
    "token_expired": Words("Signing in did not work", "The answer of your sign-in came too late. Begin again."),
    "unknown_user": Words(
        "You are not a user here yet",
        "You have signed in, but nobody has made you a user of this gateway. Ask the administrator of your"
        " organisation to add you, then sign in again.",
    ),
    "user_suspended": Words(
        "You are suspended", "Your keys are refused for now. Ask the administrator of your organisation why."
    ),
    "tenant_suspended": Words(
        "Your organisation is suspended",
        "No key of your organisation is admitted for now. Its administrator can tell you why.",
    ),
    "not_found": Words("There is no such page", "It does not exist, or is not yours. Go on where the button leads."),
    "method_not_allowed": Words("There is no such page", "The list of your keys is a good place to go on."),
    "forbidden": Words(
        "Your role does not allow this", "It is for administrators with other rights. Nothing has been changed."
    ),
    "invalid_admin_token": Words(
        "Your admin token has ended", "It was revoked or has expired. Nothing has been changed."
    ),
    "rate_limited": Words(
        "That was too often", "Keys can be looked for by their secrets so many times a minute. Try again in a moment."
    ),
    "key_revoked": Words(
        "This key is revoked", "It stays so: a revoked key cannot be changed any more. Create another one."
    ),
    "key_expired": Words("This key has expired", "An expired key cannot be rotated. Create another one."),
    "already_revoked": Words("This key was revoked before", "No gateway admits it any more."),
    "rotated_meanwhile": Words(
        "This key has been rotated already",
        "Since you opened that page the key got a new secret, perhaps by your own first click, and nothing was changed"
        " now. If you have not stored that secret, rotate once more.",
    ),
    "auth_unavailable": _AWAY,
    "entitlement_unavailable": _AWAY,
    "internal_error": Words(
        "Something broke on our side", "It has been noted. Try again, and tell us the number below if it stays so."
    ),
}
ACTIONS: Final = {
    "key.create": "Key created",
    "key.change": "Key changed",
    "key.rotate": "Key rotated",
    "key.revoke": "Key revoked",
    "key.contain": "Key ended because of a leak",
    "key.leak_reported": "Leak of a key reported",
    "key.import": "Key imported",
    "retired_secret.set_window": "End of an old secret moved",
    "user.create": "User created",
    "user.change": "User changed",
    "user.delete": "User deleted",
    "entitlement.put": "Plan given",
    "entitlement.delete": "Plan taken away",
    "tenant.create": "Tenant created",
    "tenant.change": "Tenant changed",
    "tenant.delete": "Tenant deleted",
    "tenant.delete_users": "Users of a tenant deleted",
    "plan.put": "Plan set up",
    "plan.delete": "Plan deleted",
    "admin_token.create": "Admin token created",
    "admin_token.revoke": "Admin token revoked",
    "signing_key.tend": "Signing keys tended",
    "signing_key.rotate": "Signing key rotated",
    "signing_key.withdraw": "Signing key withdrawn",
}


def spread(propagation: Mapping[str, Any]) -> str:
    """How far a change has come: on how many gateways, and how soon."""
    nodes, reported = propagation["nodes"], propagation["reported"]
    seconds = propagation["seconds"]
    span = f"{max(1, round(seconds * 1000))} ms" if seconds < 1 else f"{seconds:.1f} s"
    if nodes == 0:
        return "Confirmed on every gateway."
    text = f"Confirmed on {reported} of {nodes} gateway{'' if nodes == 1 else 's'} in {span}."
    return text if reported == nodes else f"{text} The others trust nothing that they knew before."
