"""`queue-middleware keys`: list and rotate the keys that sign webhooks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from queue_middleware.errors import RotationRefused
from queue_middleware.jobs.struct import Struct
from queue_middleware.settings import Settings
from queue_middleware.stores import locate
from queue_middleware.webhooks.signing.keyfile import KeyFile, keys_of_option, path_of_keys
from queue_middleware.webhooks.signing.keyring import LEAD_TIME, Key, KeyRing, KeyStatus, format_time

from .flags import add_action, add_actions, seconds
from .opening import as_owner, existing, settings_of
from .output import Terminal


class KeyRow(Struct, frozen=True):
    """One key."""

    kid: str
    status: KeyStatus
    signs_from: str | None
    published_until: str | None
    x: str
    """The public key, base64url."""


class Rotation(Struct, frozen=True):
    """What a rotation did."""

    keys: list[KeyRow]


OUTPUTS: dict[str, Any] = {"keys list": list[KeyRow], "keys rotate": Rotation}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `list` and `rotate`."""
    actions = add_actions(parser)
    add_action(actions, "list", "the keys and what each is used for", _list)
    rotating = add_action(actions, "rotate", "add the next signing key", _rotate)
    when = rotating.add_mutually_exclusive_group()
    when.add_argument(
        "--notice",
        type=seconds,
        default=LEAD_TIME,
        metavar="TIME",
        help="time until the new key signs: 24h at least; default 25h",
    )
    when.add_argument(
        "--compromised", action="store_true", help="the keys may have leaked: erase them; the new key signs at once"
    )


def _list(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """List the keys: which one signs, which ones are published, and for how long."""
    settings, now = settings_of(chosen), terminal.clock()
    ring = keys_of_option(settings.signing_key) or _file(settings, terminal).read()
    rows = [_row(ring, key, now) for key in ring.keys]
    if terminal.json:
        terminal.print_json(rows)
        return
    terminal.print_table(
        ("KID", "STATUS", "SIGNS FROM", "PUBLISHED UNTIL"),
        [(row.kid, row.status, row.signs_from or "-", row.published_until or "-") for row in rows],
    )


def _rotate(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Add a key. It is published at once and signs a day later; the old key stays published for two days after that."""
    settings = settings_of(chosen)
    if keys_of_option(settings.signing_key) is not None:
        raise RotationRefused(
            "the keys are in QUEUE_SIGNING_KEY, which this command cannot change: append ',<new seed>@<time>' to it "
            f"for a key that signs from that time on, e.g. @{format_time(terminal.clock() + LEAD_TIME)}"
        )
    file = _file(settings, terminal)
    if settings.signing_key is None and not file.path.exists():
        # In the wrong folder it would create a key that no service uses, and look like success.
        with as_owner(existing(settings)):
            file.create()
        ring = file.read()
    else:
        ring = file.replace_all() if chosen.compromised else file.rotate(lead_time=chosen.notice)
    if terminal.json:
        terminal.print_json(Rotation([_row(ring, key, terminal.clock()) for key in ring.keys]))
        return
    for key in ring.keys:
        terminal.print(_sentence(ring, key, terminal.clock()))
    terminal.print("Running services read the change within seconds.")


def _file(settings: Settings, terminal: Terminal) -> KeyFile:
    path = path_of_keys(settings.signing_key, locate(settings.database).secrets)
    return KeyFile(Path(path), clock=terminal.clock, warn=lambda message: terminal.note(f"queue-middleware: {message}"))


def _row(ring: KeyRing, key: Key, now: float) -> KeyRow:
    until = ring.published_until(key)
    return KeyRow(
        kid=key.pair.kid,
        status=ring.status(key, now),
        signs_from=None if key.since is None else format_time(key.since),
        published_until=None if until is None else format_time(until),
        x=key.pair.jwk(padded=False)["x"],
    )


def _sentence(ring: KeyRing, key: Key, now: float) -> str:
    row = _row(ring, key, now)
    sentences = {
        KeyStatus.NEXT: f"{row.kid} is published now and signs from {row.signs_from}",
        KeyStatus.ACTIVE: f"{row.kid} signs",
        KeyStatus.OLD: f"{row.kid} signed before, and signs beside",
        KeyStatus.SPARE: f"{row.kid} is published and does not sign",
    }
    return sentences[row.status] + (f"; published until {row.published_until}" if row.published_until else "")
