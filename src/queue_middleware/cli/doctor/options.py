"""Examines the options of a service and its keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from queue_middleware.errors import SettingsError
from queue_middleware.outbound.guard import Guard
from queue_middleware.runtime.stray_variables import stray_variables
from queue_middleware.settings import Settings
from queue_middleware.stores import locate
from queue_middleware.stores.administration import Finding, Level
from queue_middleware.webhooks.signing.keyfile import KeyFile, keys_of_option, path_of_keys
from queue_middleware.webhooks.signing.keyring import KeyRing, KeyStatus

_EVERYTHING = frozenset({"0.0.0.0/0", "::/0"})


def examine_options(settings: Settings, clock: Callable[[], float], *, identifies_clients: bool) -> Iterator[Finding]:
    """What to change. `clock` gives seconds since 1970; `identifies_clients`: clients need a key or a login."""
    for sentence, is_near in stray_variables():
        if is_near:
            yield Finding(Level.WARNING, sentence)
    yield from _keys(settings, clock)
    if settings.public_url is None:
        text = "public_url is not set: URLs in responses and webhooks begin with the host that each client has sent"
        yield Finding(Level.WARNING, text, "QUEUE_PUBLIC_URL=https://…")
    if not identifies_clients:
        text = "clients need no key: all that reach the service can submit requests"
        yield Finding(Level.WARNING, text, "QUEUE_API_KEYS=…, or authenticate=…")
    yield from _outbound(settings)


def _keys(settings: Settings, clock: Callable[[], float]) -> Iterator[Finding]:
    path = Path(path_of_keys(settings.signing_key, locate(settings.database).secrets))
    try:
        ring = keys_of_option(settings.signing_key)
        if ring is None and not path.exists() and settings.signing_key is None:
            yield Finding(Level.OK, "there is no signing key yet; the service makes one when it starts")
            return
        warned: list[str] = []
        ring = ring or KeyFile(path, clock=clock, warn=warned.append).read()
    except SettingsError as error:
        yield Finding(Level.PROBLEM, error.detail)
        return
    for sentence in warned:
        yield Finding(Level.WARNING, sentence)
    yield Finding(Level.OK, _signing(ring, clock()))


def _signing(ring: KeyRing, now: float) -> str:
    active = [key.pair.kid for key in ring.keys if ring.status(key, now) is KeyStatus.ACTIVE]
    return f"webhooks are signed with the key {active[0] if active else ring.keys[0].pair.kid}"


def _outbound(settings: Settings) -> Iterator[Finding]:
    try:
        Guard(settings.outbound_allow)
    except SettingsError as error:
        yield Finding(Level.PROBLEM, error.detail)
    opened = sorted(_EVERYTHING.intersection(settings.outbound_allow))
    if opened:
        text = f"outbound_allow contains {' and '.join(opened)}: clients can make the service call any private address"
        yield Finding(Level.WARNING, text, "name only the hosts and networks that receive webhooks")
