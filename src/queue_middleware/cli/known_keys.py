"""The keys and secrets that a command checks webhooks with, as flags."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from queue_middleware.receivers.verifier import FAL_JWKS_URL, TOLERANCE
from queue_middleware.secret_file import reason_of

from .exit_codes import CommandError
from .flags import seconds
from .service import add_url, http_url, url_of
from .trigger_key import existing_key_set
from .webhook_check import KeySource, WebhookChecker

_WELL_KNOWN = "/.well-known/jwks.json"


def add_key_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--keys`, `--secret`, `--tolerance` and `--url`."""
    parser.add_argument(
        "--keys",
        metavar="KEYS",
        help="the key set: its URL, the path of a file, `fal` for that of fal, or `auto` for that of the service at --url and "
        "that of `trigger`; default `auto`, or none if --secret is given",
    )
    parser.add_argument(
        "--secret", metavar="SECRET", action="append", default=[], help="a secret shared with the sender, whsec_…; repeatable"
    )
    parser.add_argument(
        "--tolerance",
        metavar="TIME",
        type=seconds,
        default=TOLERANCE,
        help="how much the time of a webhook may differ from now, e.g. 300, 5m, 30d; default 300 seconds",
    )
    add_url(parser)


def checker_of(chosen: argparse.Namespace, clock: Callable[[], float]) -> WebhookChecker:
    """The checker that the arguments describe. `clock` returns Unix seconds. Raises `CommandError` and `SettingsError`."""
    return WebhookChecker(list(_sources(chosen)), chosen.secret, tolerance=chosen.tolerance, clock=clock)


def _sources(chosen: argparse.Namespace) -> list[KeySource]:
    keys = chosen.keys or ("" if chosen.secret else "auto")
    if keys == "auto":
        own = existing_key_set()
        service = KeySource(url_of(chosen) + _WELL_KNOWN)
        return [service] if own is None else [service, KeySource.in_hand("trigger", own, "test key")]
    if keys == "fal":
        return [KeySource(FAL_JWKS_URL)]
    if not keys:
        return []
    return [KeySource(http_url(keys, "--keys"))] if "://" in keys else [_from_file(keys)]


def _from_file(path: str) -> KeySource:
    try:
        return KeySource.in_hand("file", Path(path).read_bytes())
    except OSError as error:
        raise CommandError(f"cannot read the key set {path}: {reason_of(error)}") from error
