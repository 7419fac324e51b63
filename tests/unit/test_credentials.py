import pytest

from gateway.auth.credentials import AMBIGUOUS, INVALID, Credential, CredentialReader
from gateway.auth.refusal import Reason, Refusal
from gateway.auth.secrets import SecretFormat, sha256_digest

FORMAT = SecretFormat("ost", "test")
READER = CredentialReader(FORMAT)
SECRET = FORMAT.generate().encode()
OTHER = FORMAT.generate().encode()
ABROAD = SecretFormat("ost", "prod").generate().encode()
FOUND = Credential(sha256_digest(SECRET))

Presented = list[tuple[bytes, bytes]]


@pytest.mark.threat("two credentials")
@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        pytest.param([], None, id="R003 no credential is an absence"),
        pytest.param([(b"Authorization", b"Bearer " + SECRET)], FOUND, id="R001 bearer"),
        pytest.param([(b"X-Api-Key", SECRET)], FOUND, id="R001 key header"),
        pytest.param([(b"authorization", b"bearer " + SECRET)], FOUND, id="R002 lower case"),
        pytest.param([(b"AUTHORIZATION", b"BEARER " + SECRET)], FOUND, id="R002 upper case"),
        pytest.param([(b"aUTHORIZATION", b"bEaReR " + SECRET)], FOUND, id="R002 mixed case"),
        pytest.param([(b"x-api-KEY", SECRET)], FOUND, id="R002 key header in mixed case"),
        pytest.param([(b"Authorization", b"Bearer  \t " + SECRET + b" \t")], FOUND, id="R002 whitespace"),
        pytest.param([(b"Authorization", b"Bearer ")], INVALID, id="R004 empty token after a space"),
        pytest.param([(b"Authorization", b"Bearer")], INVALID, id="R004 no token at all"),
        pytest.param([(b"Authorization", b"")], INVALID, id="R004 empty header"),
        pytest.param([(b"X-Api-Key", b"")], INVALID, id="R004 empty key header"),
        pytest.param([(b"Authorization", SECRET)], INVALID, id="R001 a bare key is no bearer token"),
        pytest.param([(b"Authorization", b"Basic " + SECRET)], INVALID, id="R010 another scheme is not ignored"),
        pytest.param([(b"Authorization", b"BearerX " + SECRET)], INVALID, id="R002 a scheme that begins alike"),
        pytest.param([(b"X-Api-Key", b"Bearer " + SECRET)], INVALID, id="R001 a scheme in the key header"),
        pytest.param([(b"X-Api-Key", SECRET + b"\n")], INVALID, id="R006 trailing newline"),
        pytest.param([(b"X-Api-Key", SECRET.upper())], INVALID, id="R006 another case"),
        pytest.param([(b"X-Api-Key", SECRET[:-1])], INVALID, id="R006 cut off"),
        pytest.param([(b"X-Api-Key", SECRET + b"," + SECRET)], INVALID, id="R006 two in one value"),
        pytest.param([(b"X-Api-Key", SECRET[:-1] + b"\xe9")], INVALID, id="R007 not ASCII"),
        pytest.param([(b"X-Api-Key", b"\xff\xfe\x00")], INVALID, id="R007 not text"),
        pytest.param([(b"Authorization", b"Bearer \xc3\x28")], INVALID, id="R007 not UTF-8"),
        pytest.param([(b"X-Api-Key", ABROAD)], INVALID, id="R011 another environment"),
        pytest.param([(b"X-Api-Key", SECRET), (b"X-Api-Key", OTHER)], AMBIGUOUS, id="R008 one header, two values"),
        pytest.param([(b"X-Api-Key", SECRET), (b"X-Api-Key", SECRET)], FOUND, id="R009 one header, the same twice"),
        pytest.param(
            [(b"Authorization", b"Bearer " + SECRET), (b"X-Api-Key", SECRET)], FOUND, id="R009 two headers, the same"
        ),
        pytest.param(
            [(b"Authorization", b"Bearer " + SECRET), (b"X-Api-Key", OTHER)], AMBIGUOUS, id="R009 two different ones"
        ),
        pytest.param(
            [(b"Authorization", b"Bearer nonsense"), (b"X-Api-Key", SECRET)],
            AMBIGUOUS,
            id="R010 bad, then good",
        ),
        pytest.param(
            [(b"X-Api-Key", SECRET), (b"Authorization", b"Bearer ")], AMBIGUOUS, id="R010 good first, empty second"
        ),
        pytest.param(
            [(b"Authorization", b"Basic dTpw"), (b"X-Api-Key", SECRET)],
            AMBIGUOUS,
            id="R010 a scheme beside a key",
        ),
        pytest.param([(b"X-Api-Key", b"x"), (b"Authorization", b"Bearer x")], INVALID, id="R010 a bad one twice"),
    ],
)
def test_one_credential_or_none(presented: Presented, expected: Credential | Refusal | None) -> None:
    """One credential, an absence, or a refusal: never a choice between two, never silence about a useless one."""
    assert READER.read(presented) == expected


@pytest.mark.threat("two credentials")
def test_the_order_of_headers_does_not_matter() -> None:
    """Neither the first nor the last of two credentials wins. R008 R009."""
    pair = [(b"Authorization", b"Bearer " + SECRET), (b"X-Api-Key", OTHER)]
    assert READER.read(pair) == READER.read(pair[::-1]) == AMBIGUOUS


def test_a_configured_header_is_a_place_like_any_other() -> None:
    """Only `Authorization` wants a scheme; whatever other header is configured holds the bare key. R001."""
    assert READER.read([(b"X-Legacy-Token", SECRET)]) == FOUND
    assert READER.read([(b"X-Authorization", b"Bearer " + SECRET)]) == INVALID


def test_a_credential_holds_the_digest_alone() -> None:
    """What goes on from here cannot give the secret away: 32 bytes that do not lead back to it. R040."""
    credential = READER.read([(b"X-Api-Key", SECRET)])
    assert isinstance(credential, Credential)
    assert len(credential.digest) == 32
    assert SECRET.decode() not in repr(credential)


def test_the_two_refusals_are_told_apart() -> None:
    """A bad key is 401, two keys are 400: the reasons differ. R003 R009."""
    assert INVALID.reason is Reason.INVALID_API_KEY
    assert AMBIGUOUS.reason is Reason.AMBIGUOUS_CREDENTIALS
