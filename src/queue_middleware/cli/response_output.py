"""Writes the response of a request to standard output, to a file, or into the JSON document of a command."""

from __future__ import annotations

import re
import secrets
import sys
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec

from queue_middleware.secret_file import reason_of

from .exit_codes import CommandError
from .output import printable

_TEXT = re.compile(r"(text/.*|application/(.*\+)?(json|xml|javascript|yaml))\s*(;.*)?", re.IGNORECASE)


class Written(NamedTuple):
    """What was written. `content` is for a JSON document."""

    status: int
    size: int
    path: str | None = None
    content: Any = None


def write_response(response: httpx.Response, path: str | None, *, in_document: bool) -> Written:
    """Write the body, which is read now. Raises `CommandError` if the file cannot be written, or for bytes on a terminal."""
    if path is not None:
        return Written(response.status_code, _write_file(response, Path(path)), path)
    if in_document:
        body = response.read()
        return Written(response.status_code, len(body), content=_parsed(response))
    write = _show if sys.stdout.isatty() else _write_bytes
    size = write(response)
    sys.stdout.flush()
    return Written(response.status_code, size)


def _show(response: httpx.Response) -> int:
    """Print text on a terminal, without characters that control it: other clients may have chosen a part of the text."""
    kind = response.headers.get("content-type", "text/plain")
    if not _TEXT.fullmatch(kind):
        raise CommandError(f"the response is {kind}, which a terminal cannot show; name a file with --output")
    for line in response.iter_lines():
        print(printable(line.expandtabs()))
    return response.num_bytes_downloaded


def _write_bytes(response: httpx.Response) -> int:
    return sum(sys.stdout.buffer.write(chunk) for chunk in response.iter_bytes())


def _write_file(response: httpx.Response, path: Path) -> int:
    """The file appears when it is complete."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        total = 0
        with draft.open("xb") as file:
            for chunk in response.iter_bytes():
                total += file.write(chunk)
        draft.replace(path)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {reason_of(error)}") from error
    finally:
        draft.unlink(missing_ok=True)
    return total


def _parsed(response: httpx.Response) -> Any:
    try:
        return msgspec.json.decode(response.content)  # `json` accepts NaN and half of a surrogate pair, which are not JSON
    except (msgspec.DecodeError, RecursionError):
        return response.text
