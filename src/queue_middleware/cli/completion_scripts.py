"""Writes the scripts of `completion` from the parser: `python -m queue_middleware.cli.completion_scripts`.

Needs `shtab`, which is in the extra `dev`: the scripts are made when the command changes, not when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from . import make_parser
from .completion import SCRIPTS
from .flags import Actions

_FOLDER = Path(__file__).with_name("completions")
_FILES = frozenset({"FILE", "PATH"})
"""Values of these names are completed with files."""
_SHORT_NAME = {
    "bash": "complete -o bashdefault -F _shtab_queue_middleware qm\n",
    "zsh": "compdef _shtab_queue_middleware qm\n",
    "fish": "complete --command qm --wraps queue-middleware\n",
}


def make_script(shell: str) -> str:
    """The script of a shell, also for the short name."""
    parser = make_parser()
    for command, action in _prepared(parser):
        is_file = action.metavar in _FILES
        if is_file and (action.option_strings or command != "submit"):  # the PATH of `submit` is one of the application
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # read by shtab
    return shtab.complete(parser, shell).rstrip("\n") + "\n" + _SHORT_NAME[shell]


def _prepared(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """All arguments, with the name of their action or command. Each command gets its short help as description, for menus."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list
        if not isinstance(action, Actions):
            yield parser.prog.split()[-1], action
            continue
        for named in action._get_subactions():  # noqa: SLF001
            action.choices[named.dest].description = named.help
            yield from _prepared(action.choices[named.dest])


def write() -> None:
    """Write the script of each shell."""
    _FOLDER.mkdir(exist_ok=True)
    for shell, name in SCRIPTS.items():
        (_FOLDER / name).write_text(make_script(shell), encoding="utf-8")


if __name__ == "__main__":
    write()
