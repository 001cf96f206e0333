"""Parsers of options that contain secrets, in the manner of `option_parsers`. No error repeats what was given."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from .errors import SettingsError
from .option_parsers import parse_words
from .syntax.hosts import canonical_host

WHSEC_PREFIX = "whsec_"
SHORTEST_WEBHOOK_SECRET, LONGEST_WEBHOOK_SECRET = 24, 64
"""Bytes (Standard Webhooks 1.0.0)."""


Admins = Callable[[Any], Awaitable[Any]]
"""From a Starlette `HTTPConnection` to the operator: a name, a `web.admin_access.Admin`, or None for anyone else."""


def parse_admin(value: object) -> str | Admins:
    """A token, or a function."""
    if callable(value):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]{16,512}", value):
        raise SettingsError(
            "it is a token of 16 to 512 ASCII characters without spaces, or an async function; make a token with: "
            "openssl rand -hex 32"
        )
    return value


def parse_keys(value: object) -> tuple[str, ...]:
    """API keys."""
    keys = parse_words(value)
    if not keys:
        # The option is set in order to require keys; its value may have been lost, e.g. by an empty variable.
        raise SettingsError("contains no API key; omit the option to allow anonymous access")
    for key in keys:
        # The value is not repeated: it may be almost the secret.
        if not re.fullmatch(r"[\x21-\x7e]{8,512}", key):
            raise SettingsError("an API key is 8 to 512 ASCII characters without spaces and commas")
    return keys


def parse_secrets(value: object) -> tuple[bytes, ...]:
    """Secrets of 32 bytes, as hex digits."""
    words = parse_words(value)
    if not all(re.fullmatch(r"[0-9a-fA-F]{64}", word) for word in words):
        raise SettingsError("a callback secret is 64 hex digits; make one with: openssl rand -hex 32")
    return tuple(map(bytes.fromhex, words))


def parse_key_sources(value: object) -> tuple[tuple[str, str], ...]:
    """Pairs of a host and the source of its keys, from `host=source`."""
    words = (word.partition("=") for word in parse_words(value))
    sources = tuple((canonical_host(host.strip()), source.strip()) for host, _, source in words)
    for host, source in sources:
        if not re.fullmatch(r"[a-z0-9_.:-]+", host) or not re.match(r"https?://|whsec_", source):
            raise SettingsError(
                "it takes hosts, each with the URL of a JWKS or a whsec_ secret, e.g. "
                "'queue.fal.run=https://rest.fal.ai/.well-known/jwks.json'"
            )
    return sources


def parse_webhook_secrets(value: object) -> tuple[str, ...]:
    """Secrets `whsec_…` from a string with commas or white space, or from a list; each one is checked."""
    if isinstance(value, str):
        secrets = tuple(re.findall(r"[^\s,]+", value))
    elif isinstance(value, Iterable):
        secrets = tuple(str(item) for item in value)
    else:
        raise SettingsError(f"a {type(value).__name__} is not a list of webhook secrets")
    for secret in secrets:
        decode_webhook_secret(secret)
    return secrets


def decode_webhook_secret(text: str) -> bytes:
    """The key in `whsec_` and base64. The error text never repeats the secret."""
    try:
        encoded = text.removeprefix(WHSEC_PREFIX)
        key = base64.b64decode(encoded, validate=True) if text.startswith(WHSEC_PREFIX) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not SHORTEST_WEBHOOK_SECRET <= len(key) <= LONGEST_WEBHOOK_SECRET:
        raise SettingsError(
            f"a webhook secret is {WHSEC_PREFIX} and the base64 of {SHORTEST_WEBHOOK_SECRET} to "
            f"{LONGEST_WEBHOOK_SECRET} bytes; make one with: echo {WHSEC_PREFIX}$(openssl rand -base64 32)"
        )
    return key
