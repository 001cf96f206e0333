"""Files that hold secrets: readable by their owner only, created once by any of several processes, replaced as a whole."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import SettingsError

PRIVATE_MODE = 0o600
_MAX_SIZE = 4096


def read_or_create(path: Path, make: Callable[[], str]) -> str:
    """The text of the file, stripped; `make` gives the text of a new one. Blocking: a few small file operations.

    Raises `SettingsError` for a file that cannot be created or read, or that other users can read or write.
    """
    try:
        if not path.exists():
            create(path, make())
        return _read(path)
    except OSError as error:
        raise SettingsError(f"cannot use the secret {path}: {reason_of(error)}") from error


def create(path: Path, text: str) -> None:
    """Create the file, or leave the one that another process created first. Raises `OSError`."""
    # A link appears as a whole and never replaces a file, so processes that start together agree on one.
    with _draft(path.resolve(), text, PRIVATE_MODE) as draft, suppress(FileExistsError):
        os.link(draft, path)
    _sync_directory(path.parent)


def replace(path: Path, text: str, mode: int = PRIVATE_MODE, owner: tuple[int, int] | None = None) -> None:
    """Replace the file as a whole, so that readers see the old text or the new. `owner`: user and group. Raises `OSError`."""
    with _draft(path, text, mode) as draft:
        if owner is not None:
            os.chown(draft, *owner)
        draft.replace(path)
    _sync_directory(path.parent)


def reason_of(error: OSError) -> str:
    """The error for an operator, without the path."""
    return error.strerror or type(error).__name__


@contextmanager
def _draft(path: Path, text: str, mode: int) -> Iterator[Path]:
    """A synced file with this text beside `path`, deleted at the end unless it was renamed."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib cannot open a descriptor
            file.write(text)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Make a new name survive a power failure, because what is derived from the secret survives too. Blocking."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        # The open file is checked, because the name could point to another one a moment later.
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"the secret {path} is not a regular file")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise SettingsError(f"other users can read or write the secret {path}; run: chmod 600 {path}")
        return file.read(_MAX_SIZE).decode("ascii", "replace").strip()
