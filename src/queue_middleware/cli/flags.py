"""Flags that several commands have, and their defaults in the environment."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from . import Command

Actions = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it

COMMON = ("--json", "--utc", "--no-input", "--database")
"""The flags of every command; commands that use no database do not have the last one."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


def add_actions(parser: argparse.ArgumentParser) -> Actions[argparse.ArgumentParser]:
    """Make a command that consists of actions."""
    return parser.add_subparsers(required=True, metavar="action")


def add_action(
    actions: Actions[argparse.ArgumentParser], name: str, text: str, command: Command, *, database: bool = True
) -> argparse.ArgumentParser:
    """Add an action with the flags that every command has. `text` is its help; the docstring of `command` describes it."""
    action: argparse.ArgumentParser = actions.add_parser(name, help=text, description=command.__doc__)
    set_command(action, command, database=database)
    return action


def set_command(parser: argparse.ArgumentParser, command: Command, *, database: bool = True) -> None:
    """Make `parser` run `command`, and give it the flags that every command has."""
    parser.set_defaults(command=command)
    common = parser.add_argument_group("common")
    common.add_argument("--json", action="store_true", help="print one JSON document")
    common.add_argument("--utc", action="store_true", help="print times in UTC, not relative to now")
    common.add_argument("--no-input", action="store_true", help="never ask; refuse what would need a confirmation")
    if database:
        common.add_argument("--database", metavar="PATH", help="the service's option; default QUEUE_DATABASE")


def add_operator(parser: argparse.ArgumentParser) -> None:
    """Add `--operator`: an act is recorded under this name."""
    parser.add_argument("--operator", metavar="NAME", help="the name in the audit; default: the user of the system")


def operator_of(chosen: argparse.Namespace) -> str:
    """The name under which an act is recorded."""
    import getpass  # only for acts

    return chosen.operator or getpass.getuser()


def set_defaults(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Take the default of each flag from `QUEUE_CLI_<FLAG>`, e.g. QUEUE_CLI_JSON=1 or QUEUE_CLI_LIMIT=20."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list of flags
        if isinstance(action, Actions):
            for below in action.choices.values():
                set_defaults(below, environment)
            continue
        flag = next((name for name in action.option_strings if name.startswith("--")), None)
        value = None if flag is None else environment.get(variable_of(flag))
        if value is not None and flag != "--help":
            action.default = _default(parser, action, variable_of(str(flag)), value)


def variable_of(flag: str) -> str:
    """The environment variable of a flag, e.g. `QUEUE_CLI_NO_INPUT` of `--no-input`."""
    return f"QUEUE_CLI_{flag.lstrip('-').replace('-', '_').upper()}"


def _default(parser: argparse.ArgumentParser, action: argparse.Action, variable: str, value: str) -> object:
    if action.nargs == 0:  # a flag without a value
        if value.lower() not in _TRUE | _FALSE:
            parser.error(f"{variable}: {value!r} is neither 1 nor 0")
        return action.const if value.lower() in _TRUE else action.default
    if action.choices is not None and value not in action.choices:
        parser.error(f"{variable}: {value!r} is none of {', '.join(map(str, action.choices))}")
    if isinstance(action, argparse._AppendAction):  # noqa: SLF001
        return [value if action.type is None else action.type(value)]  # type: ignore[operator]
    return value  # argparse converts the text of a default as it does that of an argument


def seconds(text: str) -> float:
    """A length of time, e.g. `30s`, `2h`, `7d`, in seconds: a type of arguments."""
    from queue_middleware.errors import SettingsError  # `--help` does not need it
    from queue_middleware.syntax.durations import parse_duration

    try:
        return parse_duration(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(error.detail) from None


def count(text: str) -> int:
    """A positive number: a type of arguments."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


class Moment(NamedTuple):
    """A time that an argument names, absolute or relative to now."""

    text: str
    absolute: datetime | None
    offset: float

    def at(self, now: float) -> datetime:
        """The time, if it is `now` in seconds since 1970."""
        return self.absolute or datetime.fromtimestamp(now + self.offset, UTC)


def past(text: str) -> Moment:
    """`2h` (two hours ago), `2027-01-15` or `2027-01-15T08:00:00Z`, in UTC unless it has an offset: a type of arguments."""
    return _moment(text, -1)


def future(text: str) -> Moment:
    """As `past`, but `2h` is in two hours."""
    return _moment(text, 1)


def _moment(text: str, sign: int) -> Moment:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return Moment(text, None, sign * seconds(text))
    return Moment(text, found if found.tzinfo is not None else found.replace(tzinfo=UTC), 0.0)
