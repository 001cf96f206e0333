"""The exit status of the command, and the errors that choose it."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit status. Every command uses these values, and no others."""

    DONE = 0
    REFUSED = 1
    """A sentence on standard error gives the reason."""
    NOT_UNDERSTOOD = 2
    NOTHING_MATCHED = 3
    REQUEST_FAILED = 4
    """The request that the command is about has failed."""
    UNREACHABLE = 5
    """The database or the service cannot be reached."""
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command with a sentence on standard error."""

    code = Exit.REFUSED

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotUnderstood(CommandError):
    """Arguments that are valid one by one, but not together."""

    code = Exit.NOT_UNDERSTOOD


class NothingMatched(CommandError):
    """Nothing is selected by the arguments."""

    code = Exit.NOTHING_MATCHED


class Unreachable(CommandError):
    """The database or the service cannot be reached."""

    code = Exit.UNREACHABLE
