"""Loads the signing keys, and reloads them when their file changes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from queue_middleware.background import run_in_thread, wait_for
from queue_middleware.errors import SettingsError
from queue_middleware.events import Emit, KeysChanged, OperatorWarning
from queue_middleware.settings import Settings

from .keyfile import FileVersion, KeyFile, keys_of_option, path_of_keys
from .keyring import KeyRing
from .keys import parse_shared_secrets
from .signer import Signer

CHECK_INTERVAL = 2.0
"""Seconds between two checks of the file: one call of `stat`, in a thread."""


class KeyReloader:
    """`open` returns the signer; `run` checks the file until `stop`. `database` is the file beside which the key file is.

    `clock` returns Unix seconds and decides which key signs.
    """

    def __init__(self, settings: Settings, database: Path, emit: Emit, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._emit = emit
        self._clock = clock
        self._stopping = asyncio.Event()
        self._lock = threading.Lock()
        self._warnings: list[str] = []
        self._option_keys = keys_of_option(settings.signing_key)
        self._file = KeyFile(path_of_keys(settings.signing_key, database), warn=self._warnings.append)
        self._version: FileVersion | None = None
        self._error = ""

    @property
    def signer(self) -> Signer:
        """The signer that `open` has made."""
        return self._signer

    async def open(self) -> Signer:
        """Load the keys; the first one is created if the option `signing_key` is not set. Raises `SettingsError`."""
        ring = await run_in_thread(self._load) if self._option_keys is None else self._option_keys
        self._signer = Signer(ring, parse_shared_secrets(self._settings.webhook_secret), clock=self._clock)
        self._emit_warnings()
        return self._signer

    async def run(self) -> None:
        """Check the file every `CHECK_INTERVAL`, until `stop`."""
        while not self._stopping.is_set():
            await self.check()
            await wait_for(self._stopping, CHECK_INTERVAL)

    def stop(self) -> None:
        """End `run`. May be called repeatedly."""
        self._stopping.set()

    async def check(self) -> None:
        """Check the file now."""
        if self._option_keys is not None:
            return
        changed = await run_in_thread(self._check)
        self._emit_warnings()
        if changed:
            self._emit(KeysChanged(self._signer.active.kid))

    async def jwks(self) -> Mapping[str, Any]:
        """The current JSON Web Key Set (RFC 7517 §5) that verifies webhooks."""
        await self.check()
        return self._signer.jwks()

    def _load(self) -> KeyRing:
        if self._settings.signing_key is None:
            self._file.create()
        # Before the file is read, so that a change in between causes another reading.
        self._version = self._file.version()
        return self._file.read()

    def _check(self) -> bool:
        with self._lock:
            version = self._file.version()
            if version == self._version:
                self._error = ""
                return False
            try:
                ring = self._file.read()
            except SettingsError as error:
                self._warn_once(error.detail)
                return False
            self._version, self._error = version, ""
            changed = ring.dump() != self._signer.ring.dump()
            self._signer.ring = ring
            return changed

    def _warn_once(self, error: str) -> None:
        """The loaded keys stay in use. Repeated checks with the same error warn once."""
        if error != self._error:
            self._error = error
            self._warnings.append(f"{error}; the keys that are loaded stay in use")

    def _emit_warnings(self) -> None:
        while self._warnings:
            self._emit(OperatorWarning(self._warnings.pop(0)))
