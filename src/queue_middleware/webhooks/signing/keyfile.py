"""The file with the signing keys: created, read, and rotated while other processes use it.

    KeyFile(Path("/srv/queue.sqlite3.key")).rotate()

It is replaced as a whole and never written in place, so readers see the old keys or the new. Blocking: a few small
operations.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from queue_middleware import secret_file
from queue_middleware.errors import RotationRefused, SettingsError

from .keyring import LEAD_TIME, KeyRing
from .keys import KeyPair

_FOREIGN_MODE = 0o640
"""Mode mask for a key file that this user does not own, or that root owns for a service that reads it by its group."""
_MAX_SIZE = 16 * 1024

FileVersion = tuple[int, int, int, int]
"""Differs between two files, and between two contents or modes of one file."""


def keys_of_option(signing_key: str | None) -> KeyRing | None:
    """The keys in the option `signing_key`; None if it is a path or not set. Raises `SettingsError`."""
    if signing_key is None or signing_key.startswith("/"):
        return None
    try:
        return KeyRing.parse(signing_key)
    except SettingsError as error:
        raise SettingsError(f"signing_key: {error.detail}; or set it to the absolute path of a key file") from None


def path_of_keys(signing_key: str | None, database: Path) -> Path:
    """The key file that the option names; without the option the one beside the database."""
    return database.with_name(f"{database.name}.key") if signing_key is None else Path(signing_key)


class KeyFile:
    """The keys in one file. `clock` returns Unix seconds; `warn` is called with messages for the operator."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, warn: Callable[[str], None] = lambda message: None
    ) -> None:
        self.path = path
        self._clock = clock
        self._warn = warn

    def version(self) -> FileVersion | None:
        """Changes when the file is replaced or its content or mode changes; None if it cannot be examined."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size

    def read(self) -> KeyRing:
        """The keys. Raises `SettingsError` if the file cannot be read, is malformed, or is accessible to other users."""
        try:
            return self._read()
        except FileNotFoundError:
            raise SettingsError(f"there is no signing key {self.path}; make one with: queue-middleware keys rotate") from None
        except OSError as error:
            reason = secret_file.reason_of(error)
            raise SettingsError(f"cannot read the signing key {self.path}: {reason}; fix that, or set signing_key") from error

    def create(self) -> None:
        """Create the first key if there is no file. Processes that start together agree on one. Raises `SettingsError`."""
        try:
            if not self.path.exists():
                secret_file.create(self.path, KeyRing.of(KeyPair.generate()).dump())
        except OSError as error:
            reason = secret_file.reason_of(error)
            raise SettingsError(f"cannot create the signing key {self.path}: {reason}; set signing_key") from error

    def rotate(self, *, lead_time: float = LEAD_TIME) -> KeyRing:
        """Add a key that is published at once and signs in `lead_time` seconds; delete those that are no longer published.

        Running processes read the new file within seconds. If there is no file, the key is the first and signs at once.
        Raises `RotationRefused` for the reasons of `KeyRing.rotated`, and if the file cannot be replaced.
        """
        with self._locked():
            if not self.path.exists():
                self.create()
                return self.read()
            return self._replace(self.read().rotated(KeyPair.generate(), self._clock(), lead_time))

    def replace_all(self) -> KeyRing:
        """Delete all keys, because they may be compromised, and create one that signs at once. Raises `RotationRefused`.

        Receivers with the old key set refuse webhooks until they fetch the new one.
        """
        with self._locked():
            if not self.path.exists():
                self.create()
                return self.read()
            return self._replace(KeyRing.of(KeyPair.generate()))

    def _read(self) -> KeyRing:
        with self.path.open("rb") as file:
            # The open file is checked, because the name could point to another one a moment later.
            self._check_access(file.fileno())
            text = file.read(_MAX_SIZE).decode("ascii", "replace")
        try:
            return KeyRing.parse(text)
        except SettingsError as error:
            raise SettingsError(f"{self.path}: {error.detail}") from None

    def _check_access(self, descriptor: int) -> None:
        """Refuse a file that other users can access. The group may read a file that this user does not own.

        Kubernetes opens the files of a volume to the group `fsGroup`.
        """
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"the signing key {self.path} is not a regular file")
        if status.st_mode & 0o007:
            raise SettingsError(
                f"other users can read or write the signing key {self.path}; run: chmod 600 {self.path} "
                "(in a Kubernetes secret: defaultMode: 0400)"
            )
        if status.st_mode & 0o070 and _is_owned(status):
            self._close_to_group(descriptor)

    def _close_to_group(self, descriptor: int) -> None:
        try:
            os.fchmod(descriptor, secret_file.PRIVATE_MODE)
        except OSError:
            return  # mounted read-only: the operator chose the mode
        self._warn(
            f"the signing key {self.path} was accessible to its group and is not any more; if another user may have read it, "
            "run: queue-middleware keys rotate --compromised"
        )

    def _replace(self, ring: KeyRing) -> KeyRing:
        target = self.path.resolve()
        status = target.stat()
        if _is_owned(status):
            secret_file.replace(target, ring.dump())
        else:  # the service that owns the file has to be able to read it, whichever user rotates
            mode = stat.S_IMODE(status.st_mode) & _FOREIGN_MODE
            secret_file.replace(target, ring.dump(), mode, (status.st_uid, status.st_gid))
        return ring

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One rotation at a time, over all processes. The directory is locked, because the file itself is replaced."""
        try:
            descriptor = os.open(self.path.resolve().parent, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RotationRefused(f"cannot replace the signing key {self.path}: {secret_file.reason_of(error)}") from error
        except SettingsError as error:
            raise RotationRefused(error.detail) from error


def _is_owned(status: os.stat_result) -> bool:
    """Whether this user owns the file. False for root, whose file may be meant for a service that reads it by its group."""
    return status.st_uid == os.geteuid() != 0
