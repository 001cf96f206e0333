"""What the headers of a webhook claim, in fal's spelling and in that of Standard Webhooks. Nobody has vouched for it yet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from .errors import VerificationError
from .value import Value
from .wire import standard
from .wire import webhook as fal

Pairs = Iterable[tuple[str | bytes, str | bytes]]

MOST_SIGNATURES = 16
"""Of one webhook: each costs a try with each key, and anybody may send some."""

_HEX_SIGNATURE = re.compile(r"[0-9a-fA-F]{128}")
_SECONDS = re.compile(r"[0-9]{1,12}")


class Proof(Value, frozen=True):
    """A message that was signed, and the signatures that came with it: Ed25519, and codes of HMAC."""

    message: bytes
    signatures: tuple[bytes, ...]
    codes: tuple[bytes, ...]
    timestamp: int
    request_id: str | None = None
    user_id: str | None = None
    webhook_id: str | None = None


Reader = Callable[[Mapping[bytes, str], bytes], Proof]
"""From headers and the body. Raises `VerificationError`."""


def read_fal(found: Mapping[bytes, str], body: bytes) -> Proof:
    """The four headers of fal (fal queue contract, section 9)."""
    request_id, user_id = _header(found, fal.REQUEST_ID), _header(found, fal.USER_ID)
    timestamp, signature = _header(found, fal.TIMESTAMP), _header(found, fal.SIGNATURE)
    at = _seconds(timestamp, fal.TIMESTAMP)
    if not _HEX_SIGNATURE.fullmatch(signature):
        raise VerificationError("the header x-fal-webhook-signature is not 64 bytes in hex")
    message = fal.signed_message(request_id, user_id, timestamp, body)
    return Proof(message, (bytes.fromhex(signature),), (), at, request_id=request_id, user_id=user_id)


def read_standard(found: Mapping[bytes, str], body: bytes) -> Proof:
    """The three headers of Standard Webhooks."""
    webhook_id, timestamp = _header(found, standard.ID), _header(found, standard.TIMESTAMP)
    at = _seconds(timestamp, standard.TIMESTAMP)
    signatures, codes = standard.read_signatures(_header(found, standard.SIGNATURE))
    if not signatures and not codes:
        raise VerificationError("the header webhook-signature has neither 'v1a,' nor 'v1,' and base64")
    if len(signatures) + len(codes) > MOST_SIGNATURES:
        raise VerificationError(f"the header webhook-signature has more than {MOST_SIGNATURES} signatures")
    return Proof(standard.signed_message(webhook_id, timestamp, body), signatures, codes, at, webhook_id=webhook_id)


SPELLINGS: Mapping[Reader, tuple[bytes, ...]] = {
    read_fal: (fal.REQUEST_ID, fal.USER_ID, fal.TIMESTAMP, fal.SIGNATURE),
    read_standard: (standard.ID, standard.TIMESTAMP, standard.SIGNATURE),
}
"""The headers that each reads."""


def collect(headers: Mapping[str, str] | Pairs) -> dict[bytes, str]:
    """The headers of both spellings, by name in lower case. Raises `VerificationError` for one that came twice."""
    wanted = {name for names in SPELLINGS.values() for name in names}
    found: dict[bytes, str] = {}
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        key = (name if isinstance(name, bytes) else name.encode("latin-1", "replace")).lower()
        if key not in wanted:
            continue
        if key in found:
            raise VerificationError(f"the header {key.decode()} came twice")
        found[key] = value.decode("latin-1") if isinstance(value, bytes) else value
    return found


def read_proofs(
    readers: Iterable[Reader], found: Mapping[bytes, str], body: bytes, now: float, tolerance: float
) -> list[Proof]:
    """Those that are well-formed and of our time, one at least. Raises `VerificationError` for the first that is not."""
    proofs, troubles = [], []
    # Without any header of them all, the first says what is missing.
    for reader in sorted(readers, key=lambda reader: not any(map(found.get, SPELLINGS[reader]))):
        try:
            proof = reader(found, body)
            _check_time(proof, now, tolerance)
        except UnicodeEncodeError:
            troubles.append(VerificationError("a header of the webhook is not text"))
        except VerificationError as error:
            troubles.append(error)
        else:
            proofs.append(proof)
    if not proofs:
        raise troubles[0]
    return proofs


def _check_time(proof: Proof, now: float, tolerance: float) -> None:
    if abs(now - proof.timestamp) > tolerance:
        raise VerificationError(f"the webhook's time differs from ours by more than {tolerance:g} s")


def _header(found: Mapping[bytes, str], name: bytes) -> str:
    if not (value := found.get(name)):
        raise VerificationError(f"the header {name.decode()} is missing")
    return value


def _seconds(text: str, name: bytes) -> int:
    if not _SECONDS.fullmatch(text):
        raise VerificationError(f"the header {name.decode()} is not a number of seconds")
    return int(text)
