"""Resolves the option `database` to the real path of the file, because other files lie beside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from queue_middleware.errors import SettingsError, StoreError
from queue_middleware.option_parsers import path_of_database

_MAX_LINKS = 40
"""As many as Linux follows."""


def database_path(database: str) -> Path:
    """The file that the option `database` names: absolute, symbolic links followed, whether it exists or not.

    Raises `StoreError` for another kind of database, `SettingsError` for what cannot be a file.
    """
    try:
        text = path_of_database(database)
    except SettingsError as error:
        raise StoreError(f"database: {error.detail}") from None
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise SettingsError(f"database: the home folder in {text!r} is not known; write an absolute path") from None
    here = Path(os.fsdecode(os.getcwdb()))  # noqa: PTH109 - see `_follow`
    real = _follow(str(here / path))
    if stat.S_ISDIR(_mode(real)):
        raise SettingsError(f"database: {real} is a folder; write the path of a file, e.g. {real / 'queue.sqlite3'}")
    return real


def _follow(path: str) -> Path:
    """What `os.path.realpath` gives, without the calls that detectors of blocking calls in event loops report.

    A queue may be made in one, by a test or by `add_middleware`.
    """
    waiting, real, links = path.split("/")[::-1], Path("/"), 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            real = real.parent
        elif part not in ("", "."):
            target = _link(real / part)
            links += target is not None
            if links > _MAX_LINKS:
                raise SettingsError(f"database: the symbolic links of {path} lead in a circle")
            if target is None:
                real = real / part
            else:
                real = Path("/") if target.startswith("/") else real
                waiting.extend(target.split("/")[::-1])
    return real


def _link(path: Path) -> str | None:
    """Where a symbolic link points; None for everything else, and for what is not there."""
    return str(path.readlink()) if stat.S_ISLNK(_mode(path)) else None


def _mode(path: Path) -> int:
    """0 for what is not there, or cannot be looked at: opening it will say why."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0
