"""Parses the signed message of a webhook from its headers, in the formats of fal and Standard Webhooks; verifies nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from queue_middleware.errors import VerificationError
from queue_middleware.webhooks.formats import fal, standard

HeaderPairs = Iterable[tuple[str | bytes, str | bytes]]

MAX_SIGNATURES = 16
"""Of one webhook. Each one is tried with each key, and the sender is not known before one of them verifies."""

_HEX_SIGNATURE = re.compile(r"[0-9a-fA-F]{128}")
_UNIX_SECONDS = re.compile(r"[0-9]{1,12}")


class SignedMessage(NamedTuple):
    """A signed message, and the signatures that came with it: Ed25519 signatures and HMAC-SHA256 MACs."""

    message: bytes
    signatures: tuple[bytes, ...]
    macs: tuple[bytes, ...]
    timestamp: int
    request_id: str | None = None
    user_id: str | None = None
    webhook_id: str | None = None


Parser = Callable[[Mapping[bytes, str], bytes], SignedMessage]
"""Takes the headers and the body. Raises `VerificationError`."""


def parse_fal(headers: Mapping[bytes, str], body: bytes) -> SignedMessage:
    """From fal's four headers (docs/reference/protocols/fal.md, section 9)."""
    request_id, user_id = _require(headers, fal.REQUEST_ID), _require(headers, fal.USER_ID)
    timestamp, signature = _require(headers, fal.TIMESTAMP), _require(headers, fal.SIGNATURE)
    signed_at = _parse_seconds(timestamp, fal.TIMESTAMP)
    if not _HEX_SIGNATURE.fullmatch(signature):
        raise VerificationError("the header x-fal-webhook-signature is not 64 bytes in hex")
    message = fal.signed_message(request_id, user_id, timestamp, body)
    return SignedMessage(message, (bytes.fromhex(signature),), (), signed_at, request_id=request_id, user_id=user_id)


def parse_standard(headers: Mapping[bytes, str], body: bytes) -> SignedMessage:
    """From the three headers of Standard Webhooks (specification 1.0.0)."""
    webhook_id, timestamp = _require(headers, standard.ID), _require(headers, standard.TIMESTAMP)
    signed_at = _parse_seconds(timestamp, standard.TIMESTAMP)
    signatures, macs = standard.parse_signatures(_require(headers, standard.SIGNATURE))
    if not signatures and not macs:
        raise VerificationError("the header webhook-signature has neither 'v1a,' nor 'v1,' followed by a signature in base64")
    if len(signatures) + len(macs) > MAX_SIGNATURES:
        raise VerificationError(f"the header webhook-signature has more than {MAX_SIGNATURES} signatures")
    message = standard.signed_message(webhook_id, timestamp, body)
    return SignedMessage(message, signatures, macs, signed_at, webhook_id=webhook_id)


FORMATS: Mapping[Parser, tuple[bytes, ...]] = {
    parse_fal: (fal.REQUEST_ID, fal.USER_ID, fal.TIMESTAMP, fal.SIGNATURE),
    parse_standard: (standard.ID, standard.TIMESTAMP, standard.SIGNATURE),
}
"""The headers that each parser reads."""

_HEADER_NAMES = frozenset(name for names in FORMATS.values() for name in names)


def extract_headers(headers: Mapping[str, str] | HeaderPairs) -> dict[bytes, str]:
    """The signature headers of all formats by lower-case name. Raises `VerificationError` if one of them is repeated."""
    found: dict[bytes, str] = {}
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        key = (name if isinstance(name, bytes) else name.encode("latin-1", "replace")).lower()
        if key not in _HEADER_NAMES:
            continue
        if key in found:
            raise VerificationError(f"the header {key.decode()} is repeated")
        found[key] = value.decode("latin-1") if isinstance(value, bytes) else value
    return found


def parse_messages(
    parsers: Iterable[Parser], headers: Mapping[bytes, str], body: bytes, now: float, tolerance: float
) -> list[SignedMessage]:
    """The messages that are well-formed and recent, at least one.

    If there is none, raises the first parser's `VerificationError`; parsers whose headers are present come first.
    """
    messages, failures = [], []
    for parser in sorted(parsers, key=lambda parser: not any(map(headers.get, FORMATS[parser]))):
        try:
            message = parser(headers, body)
            _check_time(message, now, tolerance)
        except UnicodeEncodeError:
            failures.append(VerificationError("a header of the webhook is not valid text"))
        except VerificationError as error:
            # Its traceback would refer to this list: a cycle, which keeps the body until the garbage collector runs.
            failures.append(error.with_traceback(None))
        else:
            messages.append(message)
    if not messages:
        raise failures.pop(0)
    return messages


def _check_time(message: SignedMessage, now: float, tolerance: float) -> None:
    if abs(now - message.timestamp) > tolerance:
        raise VerificationError(f"the webhook's timestamp differs from this machine's clock by more than {tolerance:g} s")


def _require(headers: Mapping[bytes, str], name: bytes) -> str:
    if not (value := headers.get(name)):
        raise VerificationError(f"the header {name.decode()} is missing")
    return value


def _parse_seconds(text: str, name: bytes) -> int:
    if not _UNIX_SECONDS.fullmatch(text):
        raise VerificationError(f"the header {name.decode()} is not a number of seconds")
    return int(text)
