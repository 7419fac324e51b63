"""The source compares no secret with `==`: secrets are looked up by digest, or compared in constant time. R015."""

import ast
from pathlib import Path

import pytest

import gateway

SENSITIVE = ("secret", "digest", "token", "pepper", "password", "signature", "hmac")
# Comparisons that tell nothing: file, and the comparison as it is written.
ALLOWED = {
    # Digests that both came from here: which of our own entries a subject belongs to.
    ("stores/local.py", "other != digest"),
    # Both were computed here from the digest that is looked up; nobody presents either.
    ("auth/lookup.py", "finding.digests == self._peppers.candidates(digest)"),
    # The database has found the row by this very digest; this only catches one that it should not have.
    ("stores/postgres/lookup.py", "record.digest != form"),
    # Both of the caller's own secret: whether another node asked under the same peppers.
    ("auth/lookup.py", "finding.digests == self._peppers.candidates(digest)"),
}


def comparisons(source: str) -> list[str]:
    """Every `==`, `!=`, `in` a list and `match` literal in `source` with a name in it that means a secret."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
                is_equality = isinstance(operator, ast.Eq | ast.NotEq)
                is_among = isinstance(operator, ast.In | ast.NotIn) and isinstance(
                    right, ast.List | ast.Tuple | ast.Set
                )
                if (is_equality or is_among) and any(is_sensitive(side) for side in (left, right)):
                    found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and is_method(node, ("__eq__", "__ne__", "startswith", "endswith")):
            assert isinstance(node.func, ast.Attribute)
            if any(is_sensitive(side) for side in (node.func.value, *node.args)):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Match) and is_sensitive(node.subject):
            found += [
                f"match {ast.unparse(node.subject)}" for case in node.cases if isinstance(case.pattern, ast.MatchValue)
            ]
    return found


def is_method(node: ast.Call, names: tuple[str, ...]) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr in names


def is_sensitive(node: ast.expr) -> bool:
    """Whether a value is a secret by its name: the last name of it counts, and a length is none."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return not name.isupper() and any(word in name.lower() for word in SENSITIVE)  # constants are public
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            return any(map(is_sensitive, elements))
        case ast.Subscript(value=value) | ast.Await(value=value) | ast.NamedExpr(value=value):
            return is_sensitive(value)
        case ast.Call(func=ast.Name(id="len" | "type" | "isinstance")):
            return False
        case ast.Call(func=ast.Attribute(value=value) as func, args=args):
            return is_sensitive(func) or is_sensitive(value) or any(map(is_sensitive, args))
        case ast.Call(func=func, args=args):
            return is_sensitive(func) or any(map(is_sensitive, args))
        case ast.BinOp(left=left, right=right):
            return is_sensitive(left) or is_sensitive(right)
    return False


ROOT = Path(gateway.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.threat("time as an oracle")
@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_no_secret_is_compared_with_equals(path: Path) -> None:
    """Timing tells nothing of a secret, since no comparison stops at its first wrong byte. R015."""
    name = str(path.relative_to(ROOT))
    assert [text for text in comparisons(path.read_text()) if (name, text) not in ALLOWED] == []


def test_there_is_source_to_look_at() -> None:
    """A guard over nothing guards nothing, and no exception outlives its reason. R381."""
    assert len(FILES) > 50
    for name, text in ALLOWED:
        assert text in comparisons((ROOT / name).read_text())


@pytest.mark.parametrize(
    "source",
    [
        "if secret == other: pass",
        "if other != self._digest: pass",
        "ok = row.digest == sha256_digest(presented)",
        "ok = hashlib.sha256(secret).digest() == stored",
        "ok = hmac.new(key, text, 'sha256').digest() == stored",
        "ok = a < b == pepper",
        "ok = token[7:] == expected",
        "ok = settings.password.get_secret_value() == given",
        "ok = admin_token in (first, second)",
        "ok = given not in [secret]",
        "ok = token.__eq__(given)",
        "ok = given.endswith(secret)",
        "ok = secret.strip() == given",
        "ok = 'x' + token == given",
        "match token:\n    case 'abc': pass",
        "ok = [key for key in keys if key.digest == digest]",
        "ok = (read_token := f()) == given or secret_of(a) == b",
        "async def f():\n    return await read_secret() == given",
    ],
)
def test_the_guard_sees_a_comparison(source: str) -> None:
    """Each of these is what it is there to find. R015, R382."""
    assert comparisons(source)


@pytest.mark.parametrize(
    "source",
    [
        "ok = hmac.compare_digest(secret, other)",
        "ok = len(secrets) != 1",
        "ok = secret is None",
        "ok = self._good.get(digest)",
        "ok = digest in self._flights",
        "ok = name == other",
    ],
)
def test_the_guard_lets_the_right_ways_pass(source: str) -> None:
    """Constant time, lookups, lengths and identity are no comparison of secrets. R015."""
    assert comparisons(source) == []
