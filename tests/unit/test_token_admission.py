"""Admission by token, over stores in memory: what is asked, for how long an answer is believed, and what ends it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.auth.admission import Admitted
from gateway.auth.credentials import Token
from gateway.auth.held import NEGATIVE_ENTRIES
from gateway.auth.principal import AuthKind
from gateway.auth.refusal import Owner, Reason, Refusal
from gateway.auth.secrets import sha256_digest
from gateway.auth.tokens import Signers, TokenVerifier
from gateway.auth.verdict import Access
from gateway.errors import StoreUnavailable
from gateway.stores.records import SecretState
from tests.fixtures.admission_world import EPOCH, GOOD, NEGATIVE_TTL_SECONDS, REQUIRED, TTL_SECONDS, World, settle
from tests.fixtures.signed import AUDIENCE, ISSUER, Signer

SIGNER = Signer()
OPEN_TO_TOKENS = Access("required", tokens=True)
NOW = EPOCH + 1000  # by the database's clock, when the world begins
BOUND = ("k", "s", "sig_one")


def token(
    *, scopes: object = ("orders:read",), lives_seconds: float = 900, signer: Signer = SIGNER, **more: Any
) -> Token:
    """A token of the key that stands in the world."""
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "u", "tenant": "t", "key": "k", "secret": "s", "env": "test",
        "scopes": scopes, "iat": int(NOW), "exp": int(NOW + lives_seconds), "jti": "tok_1",
    }  # fmt: skip
    text = signer.sign(claims | more).encode()
    return Token(sha256_digest(text), text)


def world(*, leeway_seconds: float = 0, **facts: Any) -> World:
    """One key, with `facts` about it, and a node that knows one signing key."""
    signers = Signers()
    signers.take({SIGNER.key_id: SIGNER.public}, signers.begin())
    judge = TokenVerifier(signers, issuer=ISSUER, audience=AUDIENCE, environment="test", leeway_seconds=leeway_seconds)
    made = World(judge=judge)
    made.truth.bound[BOUND] = replace(GOOD, digest=b"d" * 32, **facts)
    return made


async def principal_of(made: World, presented: Token, access: Access = OPEN_TO_TOKENS) -> Any:
    decision = await made.decide(presented, access)
    assert isinstance(decision, Admitted), decision
    return decision.principal


async def test_a_token_asks_once_and_is_warm_from_then_on() -> None:
    """The first use is one question to Postgres; the next ones are answered from memory. Redis is not asked. R160."""
    made, presented = world(), token()
    principal = await principal_of(made, presented)
    assert (principal.kind, principal.key_id, principal.scopes) == (AuthKind.TOKEN, "k", {"orders:read"})
    assert b"X-Auth-Kind: token\r\n" in principal.identity
    for _ in range(3):
        assert isinstance(made.admission.admit(presented, OPEN_TO_TOKENS), Admitted)
    assert (made.truth.bound_questions, made.truth.questions, made.shared.questions) == ([BOUND], [], [])
    assert made.shared.puts == []
    assert (made.counted("token", "postgres", "admitted"), made.counted("token", "local", "admitted")) == (1, 3)


async def test_a_route_that_takes_no_tokens() -> None:
    """It refuses one, good or bad, without looking at it; also one that is warm, and where a key is optional. R171."""
    made, presented = world(), token()
    await principal_of(made, presented)
    for access in (Access("required"), Access("optional"), Access("required", scopes=frozenset({"x"}))):
        for one in (presented, token(signer=Signer())):
            assert await made.outcome(one, access) == "token_not_allowed"
            refusal = await made.admission.resolve(one, access)
            assert not isinstance(refusal, Admitted)
    assert len(made.truth.bound_questions) == 1


@pytest.mark.parametrize(
    ("presented", "reason"),
    [
        pytest.param(token(signer=Signer()), "invalid_token", id="R165 bad signature"),
        pytest.param(token(signer=Signer("sig_two")), "invalid_token", id="R168 unknown signer"),
        pytest.param(token(aud="other"), "invalid_token", id="R167 audience"),
        pytest.param(token(env="prod"), "invalid_token", id="R170 environment"),
        pytest.param(Token(sha256_digest(b"a.b.c"), b"a.b.c"), "invalid_token", id="R169 malformed"),
        pytest.param(token(lives_seconds=0), "token_expired", id="R166 at its very end"),
        pytest.param(token(lives_seconds=-1), "token_expired", id="R166 past it"),
    ],
)
async def test_what_is_no_token_queries_nothing(presented: Token, reason: str) -> None:
    """Expired, malformed and badly signed tokens cost no question, cold or warm. R162 R166 R169."""
    made = world()
    for _ in range(3):
        assert await made.outcome(presented, OPEN_TO_TOKENS) == reason
    assert (made.truth.bound_questions, made.truth.questions, made.shared.questions) == ([], [], [])
    assert made.refreshes == 0
    assert made.counted("token", "local", reason) == 3


@pytest.mark.parametrize(("leeway_seconds", "ends_after"), [(0, 900), (5, 905)])
async def test_a_token_ends_to_the_instant(leeway_seconds: float, ends_after: int) -> None:
    """A warm token ends with its `exp`, and by no more than the configured leeway later. R166 R181."""
    made, presented = world(leeway_seconds=leeway_seconds), token()
    await principal_of(made, presented)
    made.clock.now += ends_after - 0.001
    assert await made.outcome(presented, OPEN_TO_TOKENS) == "admitted k"
    made.clock.now += 0.001
    assert await made.outcome(presented, OPEN_TO_TOKENS) == "token_expired"
    fresh = world(leeway_seconds=leeway_seconds)
    fresh.clock.now += ends_after
    assert await fresh.outcome(presented, OPEN_TO_TOKENS) == "token_expired"


async def test_a_token_of_a_retired_secret_lives_by_its_window() -> None:
    """Inside the window it is good, at its end it is invalid, warm or cold; each by its own secret. R161 R163 R164."""
    made = world(secret_state=SecretState.RETIRED, secret_expires_at=NOW + 100)
    other = replace(GOOD, digest=b"e" * 32, secret_state=SecretState.RETIRED, secret_expires_at=NOW + 200)
    made.truth.bound["k", "s2", "sig_one"] = other
    first, second = token(), token(secret="s2")
    for presented in (first, second):
        assert await made.outcome(presented, OPEN_TO_TOKENS) == "admitted k"
    assert made.counted("token", "retired", "admitted") == 2
    made.clock.now += 100
    assert await made.outcome(first, OPEN_TO_TOKENS) == "invalid_token"
    assert await made.outcome(second, OPEN_TO_TOKENS) == "admitted k"
    made.admission.forget_all()
    assert await made.outcome(first, OPEN_TO_TOKENS) == "invalid_token"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        pytest.param({"is_revoked": True}, "key_revoked", id="R179 revoked"),
        pytest.param({"is_tenant_active": False}, "tenant_suspended", id="R179 tenant"),
        pytest.param({"is_user_active": False}, "user_suspended", id="R179 user"),
        pytest.param({"features": {}}, "api_access_required", id="R250 no access"),
        pytest.param({"key_expires_at": NOW}, "key_expired", id="expired key"),
        pytest.param({"entitlement_valid_until": NOW}, "subscription_lapsed", id="lapsed"),
        pytest.param({"tenant_id": "other"}, "invalid_token", id="R170 another tenant"),
        pytest.param({"user_id": "other"}, "invalid_token", id="another owner"),
        pytest.param({"environment": "prod"}, "invalid_token", id="R170 another environment's key"),
    ],
)
async def test_a_token_is_worth_what_its_key_is_worth(facts: dict[str, Any], reason: str) -> None:
    """What ends the key ends its tokens, for a node that has just come and for one that hears of it. R170 R179."""
    assert await world(**facts).outcome(token(), OPEN_TO_TOKENS) == reason
    made = world()
    assert await made.outcome(token(), OPEN_TO_TOKENS) == "admitted k"
    made.truth.revision += 1
    made.truth.bound[BOUND] = replace(made.truth.bound[BOUND], **facts)
    made.tell("key:k")
    assert await made.outcome(token(), OPEN_TO_TOKENS) == reason


@pytest.mark.parametrize("subject", ["key:k", "user:u", "tenant:t", "plan:starter", "signer:sig_one"])
async def test_a_change_of_anything_behind_a_token_is_looked_up(subject: str) -> None:
    """A warm token is forgotten with whatever it depends on, the signing key included. R179."""
    made = world()
    await principal_of(made, token())
    made.truth.revision += 1
    made.truth.bound.clear()
    made.tell(subject)
    assert await made.outcome(token(), OPEN_TO_TOKENS) == "invalid_token"


async def test_a_lookup_that_a_withdrawal_overtakes_is_repeated() -> None:
    """A token found good as of before the withdrawal is not admitted after it. R179."""
    made = world()

    def withdraw() -> None:
        made.truth.before_answer = lambda: None
        made.truth.revision += 1
        made.truth.bound.clear()
        made.tell("signer:sig_one")

    made.truth.before_answer = withdraw
    assert await made.outcome(token(), OPEN_TO_TOKENS) == "invalid_token"
    assert len(made.truth.bound_questions) == 2


@pytest.mark.parametrize(
    ("asked", "has", "granted"),
    [
        pytest.param(["a", "b"], ("a", "b", "c"), {"a", "b"}, id="a part"),
        pytest.param(["a", "b"], ("b",), {"b"}, id="the key has lost one"),
        pytest.param(["a"], (), set(), id="the key has lost all"),
        pytest.param([], ("a",), set(), id="R172 empty"),
        pytest.param("a", ("a",), set(), id="R172 no list"),
        pytest.param(None, ("a",), set(), id="R172 null"),
    ],
)
async def test_scopes_are_the_tokens_and_the_keys(asked: object, has: tuple[str, ...], granted: set[str]) -> None:
    """A token has those of its scopes that its key has now; where it has none, scoped routes refuse it. R172."""
    made, presented = world(scopes=has), token(scopes=asked)
    anywhere = Access("required", tokens=True, admits_narrowed=True)
    assert (await principal_of(made, presented, anywhere)).scopes == granted
    scoped = Access("required", scopes=frozenset({"a"}), tokens=True)
    assert await made.outcome(presented, scoped) == ("admitted k" if "a" in granted else "insufficient_scope")


@pytest.mark.parametrize(
    ("asked", "has", "is_narrowed"),
    [
        pytest.param(["a", "b"], ("a", "b"), False, id="all of them"),
        pytest.param([], (), False, id="there are none"),
        pytest.param(["a"], ("a:1", "a:2"), False, id="wider than what is left"),
        pytest.param(["a"], ("a", "b"), True, id="some"),
        pytest.param(["a:1"], ("a",), True, id="one of a kind"),
        pytest.param([], ("a",), True, id="none of them"),
    ],
)
async def test_a_narrowed_token_is_for_routes_that_ask_for_scopes(
    asked: list[str], has: tuple[str, ...], is_narrowed: bool
) -> None:
    """What was given less than its key may does not open what is for everybody with a key. R176."""
    made, presented = world(scopes=has), token(scopes=asked)
    wanted = "insufficient_scope" if is_narrowed else "admitted k"
    assert await made.outcome(presented, OPEN_TO_TOKENS) == wanted
    assert await made.outcome(presented, OPEN_TO_TOKENS) == wanted, "warm as well"
    assert await made.outcome(presented, Access("required", tier=0, features=frozenset(), tokens=True)) == wanted
    for scope in asked:
        scoped = Access("required", scopes=frozenset({scope}), tokens=True)
        is_left = scope in {"a", "b", "a:1"} and any(f"{scope}:".startswith(f"{kept}:") for kept in has)
        assert await made.outcome(presented, scoped) == ("admitted k" if is_left else "insufficient_scope")


async def test_an_outage_refuses_no_token() -> None:
    """Postgres away: a new token is an outage, a known one is served on. R059 R072."""
    made = world()
    await principal_of(made, token())
    made.truth.trouble.error = StoreUnavailable("away")
    made.clock.now += TTL_SECONDS
    assert await made.outcome(token(), OPEN_TO_TOKENS) == "admitted k"
    assert await made.outcome(token(jti="tok_2"), OPEN_TO_TOKENS) == "outage"
    assert made.counted("token", "postgres", "outage") == 1


async def test_a_flood_of_tokens_evicts_no_key_and_no_good_token() -> None:
    """Bad tokens are bounded, apart from good ones and from keys. R046."""
    made, presented = world(), token()
    await principal_of(made, presented)
    key = made.plant("a")
    assert await made.outcome(key) == "admitted key-a"
    for number in range(NEGATIVE_ENTRIES + 1):
        text = b"a.%d.c" % number
        assert await made.outcome(Token(sha256_digest(text), text), OPEN_TO_TOKENS) == "invalid_token"
    assert isinstance(made.admission.admit(presented, OPEN_TO_TOKENS), Admitted)
    assert isinstance(made.admission.admit(key, OPEN_TO_TOKENS), Admitted)


async def test_a_refusal_is_not_for_ever() -> None:
    """What was refused for a signing key that nobody knew is judged again when that key is there. R043."""
    signers = Signers()
    signers.take({}, signers.begin())
    judge = TokenVerifier(signers, issuer=ISSUER, audience=AUDIENCE, environment="test", leeway_seconds=0)
    made = World(judge=judge)
    made.truth.bound[BOUND] = replace(GOOD, digest=b"d" * 32)
    assert await made.outcome(token(), OPEN_TO_TOKENS) == "invalid_token"
    signers.take({SIGNER.key_id: SIGNER.public}, signers.begin())
    assert await made.outcome(token(), OPEN_TO_TOKENS) == "invalid_token"
    made.tell("signer:sig_one")
    assert await made.outcome(token(), OPEN_TO_TOKENS) == "admitted k"
    assert NEGATIVE_TTL_SECONDS < TTL_SECONDS


def test_reasons_of_tokens_have_their_own_kind() -> None:
    """No refusal of a token is counted as one of a key."""
    made = world()
    assert made.admission.admit(token(), Access("required")) is not None
    assert made.counted("token", "local", Reason.TOKEN_NOT_ALLOWED) == 1


# -- for one request


async def test_a_token_for_one_request_admits_one() -> None:
    """Of all that come at once, and later; once its use is known here, nobody is asked about it any more. R149."""
    made, presented = world(), token(once=True)
    outcomes = await asyncio.gather(*(made.outcome(presented, OPEN_TO_TOKENS) for _ in range(5)))
    assert sorted(outcomes) == ["admitted k"] + ["token_used"] * 4
    refusal = made.admission.admit(presented, OPEN_TO_TOKENS)
    assert isinstance(refusal, Refusal)
    assert refusal.owner == Owner("k", "t", "u"), "the meter counts it for the key"
    assert len(made.truth.used) == 5
    assert [await made.outcome(presented, OPEN_TO_TOKENS) for _ in range(3)] == ["token_used"] * 3
    assert (len(made.truth.used), len(made.truth.bound_questions)) == (5, 1)
    made.admission.forget_all()
    assert await made.outcome(presented, OPEN_TO_TOKENS) == "token_used"
    assert (made.counted("token", "postgres", "admitted"), made.counted("token", "local", "admitted")) == (1, 0)


@pytest.mark.parametrize("once", [1, "yes", None, [], 0])
async def test_what_is_no_boolean_allows_no_more(once: object) -> None:
    """An odd claim is read as one request. R149."""
    made, presented = world(), token(once=once)
    assert await made.outcome(presented, OPEN_TO_TOKENS) == "admitted k"
    assert await made.outcome(presented, OPEN_TO_TOKENS) == "token_used"


async def test_only_an_admission_uses_it_up() -> None:
    """Not a route that asks for more, nor one that takes no tokens, nor the check of a stream. R149 R197."""
    made, presented = world(), token(once=True)
    more = Access("required", scopes=frozenset({"reports:read"}), tokens=True)
    for access, outcome in ((more, "insufficient_scope"), (REQUIRED, "token_not_allowed")):
        assert [await made.outcome(presented, access) for _ in range(2)] == [outcome] * 2
    assert made.truth.used == []
    assert await made.outcome(presented, OPEN_TO_TOKENS) == "admitted k"
    assert isinstance(made.admission.admit(presented, OPEN_TO_TOKENS, is_stream=True), Admitted)
    made.admission.forget_all()
    assert isinstance(await made.admission.resolve(presented, OPEN_TO_TOKENS, is_stream=True), Admitted)
    assert made.truth.used == ["tok_1"]


async def test_a_change_during_its_use_decides() -> None:
    """What is revoked while the use is put on record does not pass. R149 R231."""
    made, presented = world(), token(once=True)
    gate = asyncio.Event()

    def revoke() -> None:
        if made.truth.used:
            made.truth.revision = 2
            made.truth.bound[BOUND] = replace(GOOD, digest=b"d" * 32, is_revoked=True)
            made.tell("key:k")

    made.truth.before_answer = revoke
    made.truth.trouble.gate = gate
    deciding = asyncio.ensure_future(made.outcome(presented, OPEN_TO_TOKENS))
    await settle()
    gate.set()
    assert await deciding == "key_revoked"
    assert made.truth.used == ["tok_1"]


async def test_a_use_that_nobody_confirms_admits_nobody() -> None:
    """An outage is an outage; the token may be gone, and is refused then; known ones are no better off. R070 R149."""
    made, presented = world(), token(once=True)
    more = Access("required", scopes=frozenset({"reports:read"}), tokens=True)
    assert await made.outcome(presented, more) == "insufficient_scope"
    made.truth.trouble.error = StoreUnavailable("away")
    assert await made.outcome(presented, OPEN_TO_TOKENS) == "outage"
    made.view.fresh_until = made.clock.now
    isolated = World(judge=made.judge, isolated_seconds=30)
    isolated.truth.bound.update(made.truth.bound)
    assert await isolated.outcome(presented, more) == "insufficient_scope"
    isolated.view.fresh_until = isolated.clock.now
    assert await isolated.outcome(presented, OPEN_TO_TOKENS) == "outage"
    assert isolated.truth.used == []
