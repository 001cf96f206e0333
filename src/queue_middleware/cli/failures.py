"""What the command prints and returns for each kind of error."""

from __future__ import annotations

import errno
import os
import sys

from queue_middleware.errors import (
    BadRequest,
    NotKept,
    OutboundUnreached,
    QueueError,
    StoreError,
    Unavailable,
    UnknownRequest,
)

from .exit_codes import CommandError, Exit
from .output import printable

_BROKEN_PIPE = 141
"""As a shell reports a program that SIGPIPE has ended."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
_CODES: tuple[tuple[type[QueueError], Exit], ...] = (
    (NotKept, Exit.REFUSED),  # before its base class: the request exists
    (BadRequest, Exit.NOT_UNDERSTOOD),
    (UnknownRequest, Exit.NOTHING_MATCHED),
    (StoreError, Exit.UNREACHABLE),
    (Unavailable, Exit.UNREACHABLE),
    (OutboundUnreached, Exit.UNREACHABLE),
)


def report(error: BaseException) -> int:
    """Print the reason on standard error and return the exit status. Raises an error that is a defect of this package."""
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if isinstance(error, BrokenPipeError):  # the program that reads the output has ended, e.g. `head`
        _discard_output()
        return _BROKEN_PIPE
    if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        _discard_output()
        print(f"queue-middleware: the output cannot be written: {error.strerror}", file=sys.stderr)
        return Exit.REFUSED
    if not isinstance(error, (QueueError, CommandError)):
        raise error
    print(printable(f"queue-middleware: {error.detail}"), file=sys.stderr)  # a service may have chosen it
    return code_of(error)


def _discard_output() -> None:
    """Prevent Python from writing the rest at its end, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def code_of(error: QueueError | CommandError) -> Exit:
    """The exit status for an error."""
    if isinstance(error, CommandError):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.REFUSED)
