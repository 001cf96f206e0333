"""The key that signs sample webhooks of `trigger`, and that `listen` and `verify` know beside those of the service.

It is never a key of the service: a sample must not be valid anywhere but with these commands, or where its key set is given.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from queue_middleware import secret_file
from queue_middleware.errors import SettingsError
from queue_middleware.webhooks.signing.keyring import jwks
from queue_middleware.webhooks.signing.keys import KeyPair


def path_of_trigger_key() -> Path:
    """`queue-middleware/trigger.key` in the user's folder for configuration (XDG Base Directory Specification)."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    folder = configured if configured.startswith("/") else os.path.expanduser("~/.config")  # noqa: PTH111 - it never raises
    return Path(folder) / "queue-middleware" / "trigger.key"


def trigger_key() -> KeyPair:
    """The key of this user, created at the first use. Raises `SettingsError`."""
    path = path_of_trigger_key()
    if not path.is_absolute():
        raise SettingsError("this user has no home folder for the key of samples; set XDG_CONFIG_HOME to a folder")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot create {path.parent}: {secret_file.reason_of(error)}; set XDG_CONFIG_HOME") from error
    return KeyPair.from_hex(secret_file.read_or_create(path, lambda: KeyPair.generate().seed_hex()))


def existing_key_set() -> bytes | None:
    """The key set of the user's key as JSON; None if `trigger` has not created the key. Raises `SettingsError`."""
    return key_set_of(trigger_key()) if path_of_trigger_key().exists() else None


def key_set_of(pair: KeyPair) -> bytes:
    """The JSON Web Key Set with this key."""
    return json.dumps(jwks([pair])).encode()
