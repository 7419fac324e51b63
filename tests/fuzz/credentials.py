"""Credentials: any bytes are read as nothing, one credential, or a refusal; and only the real shape is a credential."""

import re
import zlib

from gateway.auth.credentials import AMBIGUOUS, INVALID, Credential
from gateway.auth.secrets import ALPHABET, sha256_digest
from tests.fuzz import parts

SHAPE = re.compile(rb"\Aost_test_([0-9A-Za-z]{32,128})([0-9A-Za-z]{6})\Z")
NAMES = (b"Authorization", b"authorization", b"X-Api-Key")


def is_secret(secret: bytes) -> bool:
    """The format, read off its description."""
    shape = SHAPE.match(secret)
    if shape is None or secret.endswith(b"\n"):
        return False
    number = 0
    for digit in shape[2].decode():
        number = number * 62 + ALPHABET.index(digit)
    return number == zlib.crc32(secret[:-6])


def check(data: bytes) -> None:
    """Each line of `data` is a value, behind a byte that picks the header."""
    lines = data.split(b"\n")
    presented = [(NAMES[line[0] % len(NAMES)], line[1:]) for line in lines if line]
    found = parts.credential_reader().read(presented)
    assert found == parts.credential_reader().read(presented[::-1]), "the order of headers decides"
    secrets = {secret_of(name, value) for name, value in presented}
    if not secrets:
        assert found is None
    elif len(secrets) > 1:
        assert found == AMBIGUOUS
    else:
        secret = secrets.pop()
        assert found == (Credential(sha256_digest(secret)) if is_secret(secret) else INVALID)
    for value in (data, *lines):
        assert parts.FORMAT.is_well_formed(value) == is_secret(value)


def secret_of(name: bytes, value: bytes) -> bytes:
    """What is presented in a header; nothing that can be a secret where the scheme is another one."""
    if name == b"X-Api-Key":
        return value
    bearer = re.match(rb"(?is)\Abearer (.*)\Z", value)
    return b"" if bearer is None else bearer[1].strip(b" \t")


SEEDS = [
    b"",
    b"2" + parts.SECRET,
    b"0Bearer " + parts.SECRET,
    b"1bEaReR \t" + parts.SECRET + b" ",
    b"2" + parts.SECRET + b"\n0Bearer " + parts.SECRET,
    b"2" + parts.SECRET + b"\n2x",
    b"0Basic dTpw",
    b"0Bearer",
    b"0",
    b"2\xff\x00",
    parts.SECRET,
    parts.SECRET[:-1],
    parts.SECRET.upper(),
]
TOKENS = [b"Bearer ", b"ost_test_", b"\n2", b"\n0", parts.SECRET, b"Basic "]
