"""Resolves the option `database` to the real path of the file, next to which other files are created."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from queue_middleware.errors import SettingsError, StoreError
from queue_middleware.option_parsers import path_of_database

_MAX_LINKS = 40
"""Symbolic links that are followed, as many as Linux does."""


def database_path(database: str) -> Path:
    """The absolute path of the file that `database` names, with symbolic links resolved. The file need not exist.

    Raises `StoreError` for another kind of database, and `SettingsError` for a path that cannot be a file.
    """
    try:
        text = path_of_database(database)
    except SettingsError as error:
        raise StoreError(f"database: {error.detail}") from None
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise SettingsError(f"database: the home folder in {text!r} is not known; write an absolute path") from None
    here = Path(os.fsdecode(os.getcwdb()))  # noqa: PTH109 - not reported as a blocking call
    real = _follow(str(here / path))
    if stat.S_ISDIR(_mode(real)):
        raise SettingsError(f"database: {real} is a folder; write the path of a file, e.g. {real / 'queue.sqlite3'}")
    return real


def _follow(path: str) -> Path:
    """Do the same as `os.path.realpath`, without calls that detectors of blocking calls report.

    A queue may be created in a running event loop, for instance by a test or by `add_middleware`.
    """
    parts, real, links = path.split("/")[::-1], Path("/"), 0
    while parts:
        part = parts.pop()
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
                parts.extend(target.split("/")[::-1])
    return real


def _link(path: Path) -> str | None:
    """The target of a symbolic link; None for any other file and for a missing one."""
    return str(path.readlink()) if stat.S_ISLNK(_mode(path)) else None


def _mode(path: Path) -> int:
    """The mode of a file; 0 if it is missing or cannot be read, which opening it will report."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0
