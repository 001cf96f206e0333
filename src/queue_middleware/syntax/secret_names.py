"""Recognizes the names of headers and parameters whose values are secrets."""

from __future__ import annotations

import re
from collections.abc import Collection

REDACTED = "[redacted]"
"""Printed in the place of a secret."""

_SECRET = re.compile(r"auth|cookie|credential|key|passw|pwd|secret|session|signature|token|csrf|xsrf|bearer|jwt", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\S\?\S|://[^/\s]*@|\b(basic|bearer|key|token) \S|\b(whsec_|sk-|eyJ)|-----BEGIN", re.IGNORECASE)
"""A URL with a query or a password, credentials, and common prefixes of keys and tokens."""
_HARMLESS = frozenset({"idempotency-key", "sec-websocket-key"})


def is_secret_name(name: str, extra: Collection[str] = ()) -> bool:
    """Whether the value of a header or parameter with this name is kept from view: by its words, or because it is in `extra`.

    Errs on the side of secrecy: `x-monkey` counts as secret. `extra` has names in lower case.
    """
    lower = name.lower()
    return lower in extra or (_SECRET.search(lower) is not None and lower not in _HARMLESS)


def is_secret_header(name: str, value: str) -> bool:
    """Whether the value of a header is kept from view: by its name, or because it looks like a secret, as a `Referer` may."""
    return is_secret_name(name) or _SECRET_VALUE.search(value) is not None
