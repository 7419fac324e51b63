"""Ids of what the gateway names itself. They sort by age, so a listing by id is a listing by age."""

import secrets
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
TIME_CHARACTERS = 10  # 50 bits of milliseconds: enough until the year 37,000
RANDOM_CHARACTERS = 16  # 80 bits


def new_id(kind: str) -> str:
    """A new id such as `key_01k9...`: unique, and above every id made in an earlier millisecond. Not a secret."""
    number = time.time_ns() // 1_000_000
    characters = []
    for _ in range(TIME_CHARACTERS):
        number, digit = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[digit])
    stamp = "".join(reversed(characters))
    return f"{kind}_{stamp}" + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))
