"""The JSON Schema of the configuration file, for editors and for checks before a deployment."""

from typing import Any

from gateway.settings import Settings

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE = {
    "Variable": {
        "description": "A text with a variable of the environment in it: ${NAME} or ${NAME:-default}.",
        "type": "string",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
    }
}
# A description stays outside the choice between a value and a variable, where editors look for it.
_OUTSIDE = ("title", "description", "default")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file, before variables are filled in."""
    schema: dict[str, Any] = _with_variables(Settings.model_json_schema())
    schema["$defs"].update(_VARIABLE)
    return {"$schema": _DIALECT, **schema, "title": "The configuration of Ostiary"}


def _with_variables(schema: Any) -> Any:
    """Let a variable stand wherever a text of a certain shape, a number, a flag or one of a few words may."""
    if isinstance(schema, list):
        return [_with_variables(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if kind in ("integer", "number", "boolean") or (kind == "string" and {"pattern", "enum"} & schema.keys()):
        inside = {name: value for name, value in schema.items() if name not in _OUTSIDE}
        outside = {name: value for name, value in schema.items() if name in _OUTSIDE}
        return {**outside, "anyOf": [inside, {"$ref": "#/$defs/Variable"}]}
    closed = {"additionalProperties": False} if "patternProperties" in schema else {}
    return closed | {name: value if name == "default" else _with_variables(value) for name, value in schema.items()}
