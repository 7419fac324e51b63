"""Files of imports: what is read, and what is said of a line that is none."""

import json
from typing import Any

import pytest

from gateway.control.import_rows import MOST_ROWS, FileFormat, ImportRow, Mistake, read_rows
from gateway.control.moments import parse
from gateway.control.problems import InvalidBody, PayloadTooLarge

SHA = "ab" * 32
LEAST = {"secret_sha256": SHA, "user_id": "ada", "name": "ci"}


def of_json(*lines: Any) -> list[Any]:
    raw = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return list(read_rows(raw, FileFormat.JSONL))


def of_csv(text: str) -> list[Any]:
    return list(read_rows(text.encode(), FileFormat.CSV))


def test_both_formats_say_the_same() -> None:
    """A row with all fields and a row with the fewest come out alike from either."""
    full = {
        **LEAST,
        "tenant_id": "acme",
        "prefix": "sk_live_ab",
        "scopes": ["orders:read", "a"],
        "environment": "prod",
        "expires_at": 4_000_000_000,
    }
    lines = of_json(full, LEAST)
    cells = of_csv(
        "name,secret_sha256,user_id,tenant_id,prefix,scopes,environment,expires_at\r\n"
        f"ci,{SHA},ada,acme,sk_live_ab,orders:read  a,prod,4000000000\r\n"
        f'"ci",{SHA},ada,,,,,\r\n'
    )
    assert [row for _, row in lines] == [row for _, row in cells]
    assert [number for number, _ in lines + cells] == [1, 2, 2, 3]
    assert lines[0][1].expires_at == parse(4_000_000_000)
    assert (lines[1][1].prefix, lines[1][1].scopes) == ("imported", ())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"secret_sha256": "ab" * 31}, "invalid_digest"),
        ({"secret_sha256": "x" * 64}, "invalid_digest"),
        ({"secret_sha256": None}, "invalid_digest"),
        ({"user_id": "no body"}, "invalid_user_id"),
        ({"name": "  "}, "invalid_name"),
        ({"name": "a" * 65}, "invalid_name"),
        ({"prefix": "a secret"}, "invalid_prefix"),
        ({"prefix": "sk_live_" + "a" * 9}, "invalid_prefix"),
        ({"prefix": "\u00e9"}, "invalid_prefix"),
        ({"scopes": "orders:read"}, "invalid_scopes"),
        ({"scopes": ["a b"]}, "invalid_scopes"),
        ({"environment": "PROD"}, "invalid_environment"),
        ({"expires_at": "soon"}, "invalid_expires_at"),
        ({"tenant_id": ""}, "invalid_tenant_id"),
        ({"secret": "ost_prod_leak"}, "invalid_body"),
    ],
)
def test_a_bad_row_loses_no_good_one(changes: dict[str, Any], code: str) -> None:
    """It is told with its line and the code of the field at fault, and never with what it holds. R213."""
    before, bad, after = of_json(LEAST, {**LEAST, **changes}, LEAST)
    assert isinstance(before[1], ImportRow)
    assert isinstance(after[1], ImportRow)
    assert (bad[0], bad[1].code) == (2, code)
    assert "leak" not in bad[1].message


@pytest.mark.parametrize("line", [b"{", b"[]", b"5", b"null", b"\xff\xfe", b'{"name": "\\ud800"}', b"{}{}"])
def test_a_line_that_is_no_object(line: bytes) -> None:
    """A mistake of that line alone."""
    first, second = of_json(line, LEAST)
    assert isinstance(first[1], Mistake)
    assert isinstance(second[1], ImportRow)


@pytest.mark.parametrize(
    "line", [f"ci,{SHA}", f"ci,{SHA},ada,more", f'"ci,{SHA},ada', f'"a"b,{SHA},ada', f"ci,{SHA},ada\0", ",,"]
)
def test_a_line_that_is_no_row(line: str) -> None:
    """Too few cells, too many, a quote left open: the next line is a row all the same."""
    first, second = of_csv(f"name,secret_sha256,user_id\n{line}\nci,{SHA},ada\n")
    assert isinstance(first[1], Mistake), first
    assert isinstance(second[1], ImportRow)


@pytest.mark.parametrize(
    "header", ["", "name,user_id", "name,secret_sha256,user_id,color", "name,name,secret_sha256", '"']
)
def test_a_header_has_to_name_the_columns(header: str) -> None:
    """One that lacks a column, or has another one, may mean anything: nothing of the file is taken."""
    with pytest.raises(InvalidBody):
        of_csv(f"{header}\nci,{SHA},ada\n")


def test_blank_lines_and_a_byte_order_mark_are_passed_over() -> None:
    """Numbers are those of the file's lines; the last line needs no end."""
    raw = b"\xef\xbb\xbf" + json.dumps(LEAST).encode() + b"\r\n\r\n  \n" + json.dumps(LEAST).encode()
    assert [number for number, _ in read_rows(raw, FileFormat.JSONL)] == [1, 4]
    assert list(read_rows(b"", FileFormat.JSONL)) == []


def test_a_file_has_so_many_lines_at_most() -> None:
    """More are refused before the first is looked at."""
    assert len(list(read_rows(b"x\n" * MOST_ROWS, FileFormat.JSONL))) == MOST_ROWS
    with pytest.raises(PayloadTooLarge):
        read_rows(b"x\n" * (MOST_ROWS + 2), FileFormat.JSONL)
