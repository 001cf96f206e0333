"""Brings the signing keys, and notices while the queue is running that their file was changed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .background import aside, rest
from .errors import SettingsError
from .events import Announce, KeysChanged, Warned
from .keyfile import KeyFile, Mark, keys_of_option, path_of_keys
from .keyring import KeyRing
from .secret import parse_secrets
from .settings import Settings
from .signing import Signer

LOOK_EVERY = 2.0
"""Seconds between two looks at the file: one call of `stat`, in a thread."""


class KeyWatch:
    """`open` gives the signer; `run` is its life, ended by `stop`. `database` is the file beside which the keys lie.

    `clock` gives Unix seconds: it decides which key signs.
    """

    def __init__(
        self, settings: Settings, database: Path, announce: Announce, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._announce = announce
        self._clock = clock
        self._stopping = asyncio.Event()
        self._reading = threading.Lock()
        self._warnings: list[str] = []
        self._given = keys_of_option(settings.signing_key)
        self._file = KeyFile(path_of_keys(settings.signing_key, database), warn=self._warnings.append)
        self._mark: Mark | None = None
        self._trouble = ""

    @property
    def signer(self) -> Signer:
        """The signer that `open` has made."""
        return self._signer

    async def open(self) -> Signer:
        """Read the keys; the first is made where none were asked for. Raises `SettingsError`."""
        ring = await aside(self._first) if self._given is None else self._given
        self._signer = Signer(ring, parse_secrets(self._settings.webhook_secret), clock=self._clock)
        self._tell_warnings()
        return self._signer

    async def run(self) -> None:
        """Look from time to time, until `stop`."""
        while not self._stopping.is_set():
            await self.look()
            await rest(self._stopping, LOOK_EVERY)

    def stop(self) -> None:
        """End. Repeatable."""
        self._stopping.set()

    async def look(self) -> None:
        """Look now: whoever asks for the key set is not to be told an old one."""
        if self._given is not None:
            return
        changed = await aside(self._look)
        self._tell_warnings()
        if changed:
            self._announce(KeysChanged(self._signer.active.kid))

    def _first(self) -> KeyRing:
        if self._settings.signing_key is None:
            self._file.create()
        # Before reading: what is written in between is then read again.
        self._mark = self._file.mark()
        return self._file.read()

    def _look(self) -> bool:
        with self._reading:
            mark = self._file.mark()
            if mark == self._mark:
                self._trouble = ""
                return False
            try:
                ring = self._file.read()
            except SettingsError as error:
                self._keep(error.detail)
                return False
            self._mark, self._trouble = mark, ""
            changed = ring.written() != self._signer.ring.written()
            self._signer.ring = ring
            return changed

    def _keep(self, trouble: str) -> None:
        """Go on with the keys that are known, and say why once."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._warnings.append(f"{trouble}; the keys that were read before go on signing")

    def _tell_warnings(self) -> None:
        while self._warnings:
            self._announce(Warned(self._warnings.pop(0)))
