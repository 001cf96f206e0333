"""A secret in a file of mode 0600: made once, by whichever process is first, and read by all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from .errors import SettingsError

_MODE = 0o600
_LARGEST = 4096


def read_or_make(path: Path, make: Callable[[], str]) -> str:
    """The text of the file; it is made where there is none. Blocking: a few small file operations.

    Raises `SettingsError` for a file that cannot be made or read, or that is open to others.
    """
    try:
        if not path.exists():
            _create(path, make())
        return _read(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsError(f"the secret {path} cannot be used: {reason}") from error


def _create(path: Path, text: str) -> None:
    """Put it there whole, or leave the one that another process put there first."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib cannot open a descriptor
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        # A link appears whole or not at all and never replaces, so processes that start together agree on one.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a new name in it survive a power cut: what is made from a secret outlives it. Blocking."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        # The opened file is looked at, not the name, which could point elsewhere a moment later.
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"the secret {path} is not a file")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise SettingsError(f"the secret {path} can be read or written by others; run: chmod 600 {path}")
        return file.read(_LARGEST).decode("ascii", "replace").strip()
