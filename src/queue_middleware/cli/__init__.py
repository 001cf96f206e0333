"""The command `queue-middleware` for operators. Each command group is one module here and one row in `_GROUPS`.

May import: everything below `middleware`.
Begin with `main`. Options of the service come from the same environment (`QUEUE_DATABASE`, `QUEUE_SIGNING_KEY`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from queue_middleware.errors import QueueError

from . import keys

Command = Callable[[argparse.Namespace, Callable[[], float]], None]
"""Runs one action, with the parsed arguments and a clock in Unix seconds."""

_GROUPS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "keys": (keys.HELP, keys.add_actions),
}
"""The help of each group, and what adds its actions; each action sets its `Command` as `command`."""


def main(arguments: Sequence[str] | None = None, *, clock: Callable[[], float] = time.time) -> int:
    """Run the command with these arguments, by default those of `sys.argv`. Returns 0, or 1 with a sentence on stderr."""
    chosen = parser().parse_args(arguments)
    command: Command = chosen.command
    try:
        command(chosen, clock)
    except QueueError as error:
        print(f"queue-middleware: {error.detail}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all groups and actions."""
    parser = argparse.ArgumentParser("queue-middleware", description="Manage a queue, whether or not its service is running.")
    groups = parser.add_subparsers(required=True, metavar="command")
    for name, (text, add_actions) in _GROUPS.items():
        add_actions(groups.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}."))
    return parser
