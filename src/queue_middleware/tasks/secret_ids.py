"""The secret ids of a task: 64 hex digits each, derived from a secret of the service, and stored as a hash only.

A provider receives the same id at every attempt, so the service has to be able to derive it again, and a reader of the database
must not be able to. An id is therefore the HMAC-SHA256 of a salt that is stored, with a secret that is not in the database.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from queue_middleware.errors import SettingsError
from queue_middleware.jobs.task_spec import Task, TaskSpec
from queue_middleware.secret_file import read_or_create
from queue_middleware.secret_parsers import parse_secrets

from .models import SecretIdKind

_SECRET_ID = re.compile(r"[0-9a-f]{64}")


def is_secret_id(text: str) -> bool:
    """Whether the text has the form of a secret id, whether or not it belongs to a task."""
    return _SECRET_ID.fullmatch(text) is not None


def hash_of_id(secret_id: str) -> bytes:
    """The hash of an id, which is what is stored."""
    return hashlib.sha256(secret_id.encode()).digest()


def callback_secrets(option: tuple[bytes, ...], database: Path) -> tuple[bytes, ...]:
    """Return the secrets that ids are derived from: the option's, or those in a file beside the database.

    The file is created if it does not exist. Blocking. Raises `SettingsError` for a file that cannot be used.
    """
    if option:
        return option
    path = database.with_name(f"{database.name}.secret")
    text = read_or_create(path, lambda: secrets.token_hex(32) + "\n")
    try:
        return parse_secrets(text)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.detail}") from None


class SecretIds:
    """Derives ids. The first secret is used for new tasks; tasks that were made with another secret keep their ids."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)

    def of_task(self, task: Task) -> tuple[str, str] | None:
        """The callback id and the signal token of a task; None if their secret is not configured any more."""
        secret = self._secret_of(task)
        if secret is None:
            return None
        return _derive(secret, SecretIdKind.CALLBACK, task.salt), _derive(secret, SecretIdKind.SIGNAL, task.salt)

    def make(self, kind: SecretIdKind, salt: bytes) -> str:
        """The id of a new task."""
        return _derive(self._secrets[0], kind, salt)

    def new_task(self, spec: TaskSpec, *, listed: bool = False) -> Task:
        """Return a task with ids of its own."""
        salt = os.urandom(16)
        signal = hash_of_id(self.make(SecretIdKind.SIGNAL, salt)) if spec.signal else None
        return Task(spec, salt, hash_of_id(self.make(SecretIdKind.CALLBACK, salt)), signal, listed)

    def callback_id_of(self, task: Task) -> str | None:
        """The callback id of a stored task; None if the secret that it was derived from is not configured any more."""
        secret = self._secret_of(task)
        return None if secret is None else _derive(secret, SecretIdKind.CALLBACK, task.salt)

    def _secret_of(self, task: Task) -> bytes | None:
        """The secret that the ids of the task were derived from."""
        for secret in self._secrets:
            callback_id = _derive(secret, SecretIdKind.CALLBACK, task.salt)
            if hmac.compare_digest(hash_of_id(callback_id), task.callback_hash):
                return secret
        return None


def _derive(secret: bytes, kind: SecretIdKind, salt: bytes) -> str:
    return hmac.new(secret, f"{kind}:".encode() + salt, hashlib.sha256).hexdigest()
