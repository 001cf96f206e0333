"""Writes the reference of the command from its parser: `python -m queue_middleware.cli.reference docs/reference`.

It replaces the part between the two marks of `command.md`, and the schemas in the folder `command-schemas`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from . import make_parser
from .flags import COMMON, Actions
from .schemas import schemas

BEGIN = "<!-- The rest is written by `python -m queue_middleware.cli.reference docs/reference`. -->"


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser of every command that does something."""
    inner = [choice for action in parser._actions if isinstance(action, Actions) for choice in action.choices.values()]  # noqa: SLF001
    for choice in inner:
        yield from leaves(choice)
    if not inner:
        yield parser


def reference() -> str:
    """The generated part of the page."""
    documents = schemas()
    return "\n".join(_section(leaf, documents) for leaf in leaves(make_parser()))


def _section(parser: argparse.ArgumentParser, documents: Collection[str]) -> str:
    name = parser.prog.split(" ", 1)[1]
    lines = [f"### `{name}`", "", *_sentences(parser.description or ""), ""]
    rows = [_row(action) for action in parser._actions if not _is_common(action)]  # noqa: SLF001
    if rows:
        lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    if name in documents:
        file = file_of(name)
        lines += [f"Schema of its JSON: [{file}](command-schemas/{file}).", ""]
    return "\n".join(lines)


def _is_common(action: argparse.Action) -> bool:
    return bool(set(action.option_strings) & {"--help", *COMMON})


def _row(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    value = "" if action.nargs == 0 else metavar
    if action.option_strings:
        named = ", ".join(f"`{option}{f' {value}' if value else ''}`" for option in action.option_strings)
    else:
        named = f"`{value}`"
    return f"| {_escape(named)} | {_escape(action.help or '')} |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("%%", "%")


def _sentences(text: str) -> list[str]:
    """One sentence for each line."""
    return re.split(r"(?<=[.:!]) (?=[A-Z`])", " ".join(text.split()))


def file_of(command: str) -> str:
    """The file with the schema of a command."""
    return f"{command.replace(' ', '-')}.json"


def write(folder: Path) -> None:
    """Write the page and the schemas below `folder`."""
    page = folder / "command.md"
    head, mark, _ = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{head}{mark}\n\n{reference()}", encoding="utf-8")
    for command, document in schemas().items():
        path = folder / "command-schemas" / file_of(command)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
