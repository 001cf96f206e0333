"""The secret ids of a task: 64 hex digits each, derived from a secret of the service, kept nowhere but as a hash.

A provider is told the same id at every attempt, so it must be possible to make it again; and whoever reads the database must
not be able to. Hence HMAC-SHA256 of a salt that is stored, with a secret that is not.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from .errors import SettingsError
from .optiontexts import parse_secrets
from .privatefile import read_or_make
from .tasks import SecretId
from .taskspec import Task, TaskSpec

_ID = re.compile(r"[0-9a-f]{64}")


def is_callback_id(text: str) -> bool:
    """Whether it has the form of one; of ours or not."""
    return _ID.fullmatch(text) is not None


def digest(text: str) -> bytes:
    """What is stored of an id."""
    return hashlib.sha256(text.encode()).digest()


def callback_secrets(option: tuple[bytes, ...], database: Path) -> tuple[bytes, ...]:
    """Return the secrets that ids are derived from: the option's, or those in a file beside the database.

    The file is created if it does not exist. Blocking. Raises `SettingsError` for a file that cannot be used.
    """
    if option:
        return option
    path = database.with_name(f"{database.name}.secret")
    text = read_or_make(path, lambda: secrets.token_hex(32) + "\n")
    try:
        return parse_secrets(text)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.detail}") from None


class CallbackIds:
    """Makes ids. Of several secrets the first is used for new tasks; tasks of the others keep their ids."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)

    def make(self, kind: SecretId, salt: bytes) -> str:
        """The id of a new task."""
        return _derive(self._secrets[0], kind, salt)

    def new_task(self, spec: TaskSpec, *, listed: bool = False) -> Task:
        """A task with ids of its own."""
        salt = os.urandom(16)
        signal = digest(self.make(SecretId.SIGNAL, salt)) if spec.signal else None
        return Task(spec, salt, digest(self.make(SecretId.CALLBACK, salt)), signal, listed)

    def callback_of(self, task: Task) -> str | None:
        """The callback id of a task that is stored; None where it was made with a secret that we do not have."""
        for secret in self._secrets:
            made = _derive(secret, SecretId.CALLBACK, task.salt)
            if hmac.compare_digest(digest(made), task.callback):
                return made
        return None


def _derive(secret: bytes, kind: SecretId, salt: bytes) -> str:
    return hmac.new(secret, f"{kind}:".encode() + salt, hashlib.sha256).hexdigest()
