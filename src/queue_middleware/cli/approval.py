"""Asks before a command acts on a selection: `--dry-run`, `--expect`, `--yes`, or a question on the terminal."""

from __future__ import annotations

import argparse

from .exit_codes import CommandError, NothingMatched
from .output import Terminal, plural


def add_approval(parser: argparse.ArgumentParser) -> None:
    """Add the flags that decide whether the command acts."""
    group = parser.add_argument_group("approval")
    group.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    group.add_argument("--expect", type=int, metavar="N", help="act only if exactly so many are selected")
    group.add_argument("--yes", action="store_true", help="do not ask")


def approve(chosen: argparse.Namespace, terminal: Terminal, count: int, act: str, thing: str, *, is_named: bool) -> bool:
    """Whether to act on `count` things; False with `--dry-run`.

    `act` and `thing` make up the sentence, e.g. `cancelled` and `request`. Things that are named one by one need no approval.
    Raises `NothingMatched` if there are none, and `CommandError` if the operator has not approved.
    """
    what = plural(count, thing)
    if count == 0:
        raise NothingMatched(f"no {thing} matches")
    if chosen.expect is not None and chosen.expect != count:
        raise CommandError(f"{what} {'matches' if count == 1 else 'match'}, not {chosen.expect:,}; nothing was done")
    if chosen.dry_run:
        return False
    if is_named or chosen.yes or chosen.expect is not None or terminal.confirm(f"{what} will be {act}. Continue?"):
        return True
    raise CommandError(f"{what} would be {act}; nothing was done: confirm with --yes, or with --expect {count}")
