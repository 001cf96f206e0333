"""The command `queue-middleware` for operators. Each command is one module here and one row of `COMMANDS`.

May import: everything below `middleware`.
Begin with `main`. Options of the service come from the same environment (`QUEUE_DATABASE`, `QUEUE_SIGNING_KEY`).
A module has `add_arguments(parser)`, which sets a `Command` for each action, and `OUTPUTS`, the type of each JSON document.
Only the module of the command that runs is imported: `--help` needs none.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module

from .output import Terminal, accept_every_character

Command = Callable[[argparse.Namespace, Terminal], "int | None"]
"""Runs one action with the parsed arguments. Returns a value of `exit_codes.Exit`; None stands for `Exit.DONE`."""

COMMANDS: dict[str, str] = {
    "status": "the state of the whole queue at a glance",
    "requests": "list and inspect requests, and act on them",
    "webhooks": "list and inspect webhooks, and deliver them again",
    "receivers": "the health of the receivers of webhooks",
    "pause": "hold the starts of requests",
    "resume": "end a pause",
    "processes": "the processes that run the queue",
    "metrics": "the numbers of all processes",
    "submit": "submit a request to a running queue, and wait for its response",
    "listen": "receive webhooks on this machine, check and show them",
    "trigger": "send a sample webhook to a receiver",
    "verify": "check a recorded webhook, and explain what fits and what does not",
    "doctor": "look for what is wrong, and what to do about it",
    "database": "the database: information, check, backup, space, schema",
    "keys": "the keys that sign webhooks",
    "completion": "the script with which a shell completes this command",
}
"""The help of each command, which is also the name of its module, with `_` for `-`."""


def main(arguments: Sequence[str] | None = None, *, clock: Callable[[], float] = time.time) -> int:
    """Run the command with these arguments, by default those of `sys.argv`. Returns a value of `exit_codes.Exit`.

    `clock` returns the time in seconds since 1970. Raises `SystemExit` with 2 if the arguments are not valid, and with 0
    after `--help`.
    """
    accept_every_character()
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments, clock)
        finally:
            sys.stdout.flush()  # so that a full disk or a closed pipe is an error here, and not at the end of Python
    except (Exception, KeyboardInterrupt) as error:
        from .failures import report  # nothing of it is needed for a command that succeeds

        return report(error)


def _run(given: Sequence[str], clock: Callable[[], float]) -> int:
    name = next((word for word in given if not word.startswith("-")), None)
    chosen = make_parser([] if name is None else [name], dict(os.environ)).parse_args(given)
    command: Command = chosen.command
    chosen.clock = clock
    return command(chosen, Terminal.of(chosen, clock)) or 0


def make_parser(names: Sequence[str] | None = None, environment: dict[str, str] | None = None) -> argparse.ArgumentParser:
    """The parser, with the arguments of these commands; by default of all. `environment` gives defaults of flags."""
    parser = argparse.ArgumentParser(
        "queue-middleware",
        description="See and operate a queue, whether or not its service is running.",
        epilog="Exit status: 0 done, 1 refused, 2 arguments not valid, 3 nothing matched, 4 the request failed, "
        "5 queue or service not reachable, 130 interrupted.",
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print the release and exit")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if names is None or name in names:
            module_of(name).add_arguments(command)
            from .flags import set_defaults  # `--help` does not need it

            set_defaults(command, environment or {})
    return parser


class _PrintVersion(argparse.Action):
    """Prints the release. The action of argparse needs the text in advance, and to find it takes longer than `--help`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and end the command."""
        from importlib.metadata import version

        print(f"queue-middleware {version('queue-middleware')}")
        parser.exit()


def module_of(name: str):  # type: ignore[no-untyped-def]  # a module has no useful type
    """The module of a command."""
    return import_module(f".{name.replace('-', '_')}", __name__)
