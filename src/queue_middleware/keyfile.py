"""The file that holds the signing keys: made, read, rotated while others use it.

    KeyFile(Path("/srv/queue.sqlite3.key")).rotate()

It is replaced whole, never written into, so whoever reads sees the old keys or the new. Blocking: a few small file operations.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import RotationRefused, SettingsError
from .keypair import KeyPair
from .keyring import NOTICE, KeyRing
from .privatefile import sync_folder

_KEPT_MODE = 0o600
_GIVEN_MODE = 0o640
"""What is left of the mode of a file that is somebody else's, or root's for a service that is not."""
_LARGEST_FILE = 16 * 1024

Mark = tuple[int, int, int, int]
"""By what a file is seen to be another one, or to hold something else."""


def keys_of_option(signing_key: str | None) -> KeyRing | None:
    """The keys that the option holds; None where it names a file, or nothing. Raises `SettingsError`."""
    if signing_key is None or signing_key.startswith("/"):
        return None
    try:
        return KeyRing.parse(signing_key)
    except SettingsError as error:
        raise SettingsError(f"signing_key: {error.detail}; or name a file of them by its absolute path") from None


def path_of_keys(signing_key: str | None, database: Path) -> Path:
    """The file that the option names; without it the one beside the database."""
    return database.with_name(f"{database.name}.key") if signing_key is None else Path(signing_key)


class KeyFile:
    """The keys in one file. `clock` gives Unix seconds; `warn` is told what an operator should know."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, warn: Callable[[str], None] = lambda message: None
    ) -> None:
        self.path = path
        self._clock = clock
        self._warn = warn

    def mark(self) -> Mark | None:
        """Another value once the file is another, or was changed, or its mode; None where it cannot be looked at."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size

    def read(self) -> KeyRing:
        """The keys. Raises `SettingsError` for what cannot be read, is malformed, or is open to others."""
        try:
            return self._read()
        except FileNotFoundError:
            raise SettingsError(f"there is no signing key {self.path}; make one with: queue-middleware keys rotate") from None
        except OSError as error:
            raise SettingsError(
                f"the signing key {self.path} cannot be used: {_reason(error)}; mend it, or set signing_key"
            ) from error

    def create(self) -> None:
        """Make the first key where there is no file. Processes that start together agree on one. Raises `SettingsError`."""
        try:
            if not self.path.exists():
                self._create(KeyPair.generate())
        except OSError as error:
            raise SettingsError(f"the signing key {self.path} cannot be made: {_reason(error)}; set signing_key") from error

    def rotate(self, *, notice: float = NOTICE) -> KeyRing:
        """Add a key that signs in `notice` seconds and is published at once; erase those that are no longer published.

        Running processes notice within seconds. Where there is no file the key is the first, and signs at once. Raises
        `RotationRefused`, see `KeyRing.rotated`, and for a file that cannot be replaced.
        """
        with self._alone():
            if not self.path.exists():
                self.create()
                return self.read()
            return self._replace(self.read().rotated(KeyPair.generate(), self._clock(), notice))

    def start_anew(self) -> KeyRing:
        """Erase all keys, because somebody else may have them, and make one that signs at once. Raises `RotationRefused`.

        Receivers that keep the old set refuse webhooks until they fetch the new one.
        """
        with self._alone():
            if not self.path.exists():
                self.create()
                return self.read()
            return self._replace(KeyRing.of(KeyPair.generate()))

    def _read(self) -> KeyRing:
        with self.path.open("rb") as file:
            # The opened file is looked at, not the name, which could point elsewhere a moment later.
            self._check_access(file.fileno())
            text = file.read(_LARGEST_FILE).decode("ascii", "replace")
        try:
            return KeyRing.parse(text)
        except SettingsError as error:
            raise SettingsError(f"{self.path}: {error.detail}") from None

    def _check_access(self, descriptor: int) -> None:
        """Others must not read it. Its group may, where that is not ours to change: Kubernetes opens volumes to `fsGroup`."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"the signing key {self.path} is not a file")
        if status.st_mode & 0o007:
            raise SettingsError(
                f"the signing key {self.path} can be read or written by others; run: chmod 600 {self.path} "
                "(in a Kubernetes secret: defaultMode: 0400)"
            )
        if status.st_mode & 0o070 and _is_ours(status):
            self._close_to_group(descriptor)

    def _close_to_group(self, descriptor: int) -> None:
        try:
            os.fchmod(descriptor, _KEPT_MODE)
        except OSError:
            return  # mounted to be read only: as it is, it was given to us
        self._warn(
            f"the signing key {self.path} was open to its group and no longer is; if a stranger could have read it, run: "
            "queue-middleware keys rotate --compromised"
        )

    def _create(self, pair: KeyPair) -> None:
        """Put a whole new key there, or leave the one that another process put there first."""
        draft = self._draft(KeyRing.of(pair).written(), _KEPT_MODE)
        try:
            # A link appears whole or not at all and never replaces, so processes that start together agree on one key.
            os.link(draft, self.path)
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _replace(self, ring: KeyRing) -> KeyRing:
        target = self.path.resolve()
        status = target.stat()
        ours = _is_ours(status)
        draft = self._draft(ring.written(), _KEPT_MODE if ours else stat.S_IMODE(status.st_mode) & _GIVEN_MODE)
        try:
            if not ours:
                os.chown(draft, status.st_uid, status.st_gid)  # whoever rotates, the service has to read it
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(target.parent)
        return ring

    def _draft(self, text: str, mode: int) -> Path:
        target = self.path.resolve()
        path = target.with_name(f"{target.name}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _KEPT_MODE)
        try:
            with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib cannot open a descriptor
                file.write(text)
                file.flush()
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
        except BaseException:
            path.unlink()
            raise
        return path

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One rotation at a time, over all processes. The folder is locked, because the file is going to be another one."""
        try:
            descriptor = os.open(self.path.resolve().parent, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RotationRefused(f"the signing key {self.path} cannot be replaced: {_reason(error)}") from error
        except SettingsError as error:
            raise RotationRefused(error.detail) from error


def _is_ours(status: os.stat_result) -> bool:
    """Ours alone. What is root's may be meant for a service that reads it by its group, so root does not take that away."""
    return status.st_uid == os.geteuid() != 0


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
