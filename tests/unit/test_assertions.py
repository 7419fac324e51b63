"""What an upstream is told in a signed form: what it says, for how long it is used, and what ends it. R027."""

import jwt
import pytest

from gateway.auth.assertions import LIFETIME_SECONDS, REUSED_SECONDS, TYPE, Asserter
from gateway.auth.principal import AuthKind, Principal
from gateway.auth.signing import SigningKey, signer_of
from gateway.auth.tokens import Disproved, Signers, TokenVerifier
from gateway.errors import Outage
from gateway.stores.records import SecretState
from tests.fixtures.signed import AUDIENCE, ISSUER, Signer

ONE, TWO = Signer("sig_one"), Signer("sig_two")
EPOCH = 1_700_000_000.75  # database time when the monotonic clock shows 0


def known(current: Signer | None = ONE) -> Signers:
    """Both keys are believed, `current` signs."""
    signers = Signers()
    take(signers, current)
    return signers


def take(signers: Signers, current: Signer | None) -> None:
    signing = None if current is None else SigningKey(current.key_id, current.private)
    signers.take({signer.key_id: signer.public for signer in (ONE, TWO)}, signers.begin(), signing)


def asserter(signers: Signers, audience: str = "orders") -> Asserter:
    return Asserter(
        signers,
        header="X-Identity-Assertion",
        issuer=ISSUER,
        audience=audience,
        environment="test",
        to_database=lambda monotonic: EPOCH + monotonic,
    )


def principal(user_id: str = "ada", plan: str | None = "pro") -> Principal:
    return Principal(
        kind=AuthKind.KEY,
        tenant_id="acme",
        user_id=user_id,
        key_id="key_1",
        secret_state=SecretState.CURRENT,
        scopes=frozenset({"b", "a"}),
        features=frozenset(),
        tier=1,
        identity=b"",
        plan=plan,
    )


def text_of(line: bytes) -> str:
    name, _, value = line.decode("ascii").partition(": ")
    assert name == "X-Identity-Assertion"
    assert value.endswith("\r\n")
    return value[:-2]


def test_what_an_assertion_says() -> None:
    """Who is calling, for whom it is said, and for a minute at most; the head tells it from every token."""
    text = text_of(asserter(known()).line(principal(), 10.0))
    assert jwt.get_unverified_header(text) == {"alg": "EdDSA", "typ": TYPE, "kid": "sig_one"}
    claims = jwt.decode(text, ONE.private.public_key(), ["EdDSA"], options={"verify_exp": False}, audience="orders")
    assert claims == {
        "iss": ISSUER, "aud": "orders", "sub": "ada", "tenant": "acme", "key": "key_1", "env": "test", "kind": "key",
        "scopes": ["a", "b"], "plan": "pro", "iat": 1_700_000_010, "exp": 1_700_000_070,
    }  # fmt: skip
    assert LIFETIME_SECONDS <= 60


def test_names_that_no_header_could_hold() -> None:
    """They stand in it as they are: it is JSON, in base64."""
    text = text_of(asserter(known()).line(principal("zoë\r\nX-Plan: gold", None), 0.0))
    claims = jwt.decode(text, options={"verify_signature": False})
    assert (claims["sub"], claims["plan"]) == ("zoë\r\nX-Plan: gold", None)


def test_it_is_signed_once_and_used_for_a_while() -> None:
    """The next request gets the very same bytes; before they could expire on the way, new ones are signed."""
    made, caller = asserter(known()), principal()
    first = made.line(caller, 10.0)
    assert made.line(caller, 10.0 + REUSED_SECONDS - 0.001) is first
    second = made.line(caller, 10.0 + REUSED_SECONDS)
    assert second != first
    assert made.line(caller, 10.0 + REUSED_SECONDS + 1) is second
    assert LIFETIME_SECONDS - REUSED_SECONDS >= 10


def test_each_upstream_has_its_own() -> None:
    """One upstream cannot use what it was told to speak to another as the caller."""
    signers, caller = known(), principal()
    told = {audience: asserter(signers, audience) for audience in ("orders", "reports")}
    for _ in range(2):
        for audience, made in told.items():
            assert jwt.decode(text_of(made.line(caller, 0.0)), options={"verify_signature": False})["aud"] == audience


def test_it_is_forgotten_with_its_principal() -> None:
    """What has been looked up anew is signed anew: nothing that has changed is told on."""
    made = asserter(known())
    assert made.line(principal(), 0.0) != made.line(principal("bob"), 0.0)
    assert made.line(principal(), 0.0) is not made.line(principal(), 0.0)
    assert principal() == principal()


async def test_what_a_withdrawn_key_has_signed_is_not_sent_again() -> None:
    """From the moment that the node hears of it; until it knows the next key it says nothing, rather than that."""
    signers, caller = known(), principal()
    made = asserter(signers)
    first = made.line(caller, 0.0)
    signers.heard(["key:k", "signer:sig_two"])  # another one: this one signs on
    assert made.line(caller, 1.0) is first
    signers.heard(["signer:sig_one"])
    with pytest.raises(Outage):
        made.line(caller, 1.0)
    take(signers, TWO)
    await made.settled()
    assert jwt.get_unverified_header(text_of(made.line(caller, 1.0)))["kid"] == "sig_two"


def test_what_was_read_before_a_withdrawal_is_not_taken() -> None:
    """A list of keys that was asked for before the news does not bring the withdrawn one back."""
    signers, caller = known(), principal()
    begun = signers.begin()
    signers.heard(["signer:sig_one"])
    signers.take({ONE.key_id: ONE.public}, begun, SigningKey(ONE.key_id, ONE.private))
    with pytest.raises(Outage):
        asserter(signers).line(caller, 0.0)


async def test_without_a_key_to_sign_by() -> None:
    """Before the keys have been read, after all has become doubtful, and where the key cannot be opened: an outage."""
    doubtful = known()
    doubtful.doubt()
    for signers in (Signers(), doubtful, known(current=None)):
        with pytest.raises(Outage):
            asserter(signers).line(principal(), 0.0)
    with pytest.raises(Outage):
        await asserter(known(current=None)).settled()


async def test_it_is_no_access_token() -> None:
    """Not even one whose audience is that of tokens. R168."""
    signers = known()
    text = text_of(asserter(signers, AUDIENCE).line(principal(), 0.0)).encode()
    assert signer_of(text) is None
    judge = TokenVerifier(signers, issuer=ISSUER, audience=AUDIENCE, environment="test", leeway_seconds=10**9)
    assert isinstance(await judge.verify(text), Disproved)
