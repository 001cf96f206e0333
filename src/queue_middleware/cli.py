"""The command `queue-middleware`: what an operator does beside a service that runs. For now its signing keys.

Options are those of the service, from the same environment (`QUEUE_DATABASE`, `QUEUE_SIGNING_KEY`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .backoff import parse_duration
from .errors import QueueError, RotationRefused, SettingsError
from .keyfile import KeyFile, keys_of_option, path_of_keys
from .keyring import LEAD_TIME, Key, KeyRing, KeyStatus, format_time
from .settings import Settings
from .stores import locate

Command = Callable[[argparse.Namespace, Callable[[], float]], None]


def main(arguments: Sequence[str] | None = None, *, clock: Callable[[], float] = time.time) -> int:
    """Do what the arguments say, `sys.argv` without them. 0, or 1 with a sentence on the standard error output."""
    chosen = parser().parse_args(arguments)
    command: Command = chosen.command
    try:
        command(chosen, clock)
    except QueueError as error:
        print(f"queue-middleware: {error.detail}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """What may be typed."""
    parser = argparse.ArgumentParser("queue-middleware", description="Look after a queue, while its service runs or not.")
    commands = parser.add_subparsers(required=True, metavar="command")
    keys = commands.add_parser("keys", help="the keys that sign webhooks", description="The keys that sign webhooks.")
    actions = keys.add_subparsers(required=True, metavar="action")

    listing = actions.add_parser("list", help="which keys there are, and what each is for", description=_list.__doc__)
    listing.add_argument("--json", action="store_true", help="for programs: an array of objects")
    listing.set_defaults(command=_list)

    rotating = actions.add_parser("rotate", help="add a key that will sign", description=_rotate.__doc__)
    when = rotating.add_mutually_exclusive_group()
    when.add_argument(
        "--notice",
        type=_duration,
        default=LEAD_TIME,
        metavar="TIME",
        help="until the new key signs, at least 24h; 25h unless given",
    )
    when.add_argument(
        "--compromised", action="store_true", help="somebody else may have the keys: erase them, the new one signs at once"
    )
    rotating.set_defaults(command=_rotate)

    for action in (listing, rotating):
        action.add_argument("--database", metavar="PATH", help="the option of the service; QUEUE_DATABASE unless given")
    return parser


def _list(chosen: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Show the keys: which one signs, which ones are published, and how long."""
    settings, now = _settings(chosen), clock()
    ring = keys_of_option(settings.signing_key) or _file(settings, clock).read()
    rows = [_row(ring, key, now) for key in ring.keys]
    if chosen.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'kid':43}  {'standing':8}  {'signs from':20}  published until")
    for row in rows:
        print(f"{row['kid']:43}  {row['standing']:8}  {row['signs_from'] or '-':20}  {row['published_until'] or '-'}")


def _rotate(chosen: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Make a new key. It is published at once and signs a day later; the old one stays published for two days after that."""
    settings = _settings(chosen)
    if keys_of_option(settings.signing_key) is not None:
        raise RotationRefused(
            "the keys are in QUEUE_SIGNING_KEY, which only you can change: append ',<new seed>@<time>' to it, "
            f"for a key that signs from that time on, e.g. @{format_time(clock() + LEAD_TIME)}"
        )
    file = _file(settings, clock)
    database = locate(settings.database)
    if settings.signing_key is None and not file.path.exists() and not database.exists():
        # In the wrong folder it would make a key that nobody uses, and look like success.
        raise RotationRefused(f"there is no queue at {database.name}; say where it is with --database or QUEUE_DATABASE")
    ring = file.replace_all() if chosen.compromised else file.rotate(lead_time=chosen.notice)
    for key in ring.keys:
        print(_sentence(ring, key, clock()))
    print("Running services notice within seconds.")


def _settings(chosen: argparse.Namespace) -> Settings:
    return Settings.load({} if chosen.database is None else {"database": chosen.database})


def _file(settings: Settings, clock: Callable[[], float]) -> KeyFile:
    path = path_of_keys(settings.signing_key, locate(settings.database).secrets)
    return KeyFile(Path(path), clock=clock, warn=lambda message: print(f"queue-middleware: {message}", file=sys.stderr))


def _row(ring: KeyRing, key: Key, now: float) -> dict[str, Any]:
    until = ring.published_until(key)
    return {
        "kid": key.pair.kid,
        "standing": str(ring.status(key, now)),
        "signs_from": None if key.since is None else format_time(key.since),
        "published_until": None if until is None else format_time(until),
        "x": key.pair.jwk(padded=False)["x"],
    }


def _sentence(ring: KeyRing, key: Key, now: float) -> str:
    row = _row(ring, key, now)
    sentences = {
        KeyStatus.NEXT: "{kid} is published now and signs from {signs_from}",
        KeyStatus.ACTIVE: "{kid} signs",
        KeyStatus.OLD: "{kid} signed before, and signs beside",
        KeyStatus.SPARE: "{kid} is published and does not sign",
    }
    until = "; published until {published_until}" if row["published_until"] else ""
    return (sentences[ring.status(key, now)] + until).format_map(row)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(error.detail) from None
