"""Headers and bodies of requests as arguments, in the forms that curl has."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from queue_middleware.secret_file import reason_of

from .exit_codes import CommandError

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


def header(text: str) -> tuple[str, str]:
    """`Name: value`: a type of arguments."""
    if not (match := _HEADER.fullmatch(text)):
        raise argparse.ArgumentTypeError(f"a header is written 'Name: value', not {text.split(':')[0]!r} without a value")
    return match[1], match[2].rstrip(" \t")


def read_data(text: str) -> bytes:
    """The text itself, the content of a file for `@path`, or standard input for `@-`. Raises `CommandError`."""
    if not text.startswith("@"):
        return text.encode()
    path = text[1:]
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {reason_of(error)}") from error
