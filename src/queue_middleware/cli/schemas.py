"""The JSON Schema of every document that a command prints with `--json`, from the types in `OUTPUTS`."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

from msgspec.json import decode, encode, schema

from . import COMMANDS, module_of

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def output_types() -> dict[str, Any]:
    """The type of the document of each command, e.g. of `requests list`."""
    return {command: kind for name in COMMANDS for command, kind in module_of(name).OUTPUTS.items()}


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of the document of each command, as a JSON file of it is read."""
    found = {command: _unindented(decode(encode(schema(kind)))) for command, kind in output_types().items()}
    return {
        command: {"$schema": _DIALECT, "title": f"queue-middleware {command} --json", **document}
        for command, document in found.items()
    }


def _unindented(part: Any) -> Any:
    """The same with docstrings as Python 3.13 and later keep them; earlier versions keep the indentation of the source."""
    if isinstance(part, list):
        return [_unindented(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        name: cleandoc(value) if name == "description" and isinstance(value, str) else _unindented(value)
        for name, value in part.items()
    }
