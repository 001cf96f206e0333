"""Writes the response of a request to standard output, to a file, or into the JSON document of a command."""

from __future__ import annotations

import json
import re
import secrets
import sys
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from queue_middleware.secret_file import reason_of

from .exit_codes import CommandError

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
    if sys.stdout.isatty() and not _TEXT.fullmatch(response.headers.get("content-type", "text/plain")):
        kind = response.headers["content-type"]
        raise CommandError(f"the response is {kind}, which a terminal cannot show; name a file with --output")
    total = 0
    for chunk in response.iter_bytes():
        sys.stdout.buffer.write(chunk)
        total += len(chunk)
    sys.stdout.flush()
    return Written(response.status_code, total)


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
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return response.text
