"""Checks a webhook and explains the result: which headers there are, when it was signed, and which key signed it.

The result is that of `receivers.verifier`; the explanation looks at each part, also after the first one that does not fit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import httpx
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from queue_middleware.errors import KeysUnavailable, VerificationError
from queue_middleware.receivers.signatures import FORMATS, Parser, SignedMessage, extract_headers, parse_fal
from queue_middleware.receivers.verifier import TOLERANCE, VerifiedWebhook, WebhookVerifier
from queue_middleware.webhooks.signing.keys import parse_shared_secrets, thumbprint

HeaderList = Sequence[tuple[str, str]]


class Mark(StrEnum):
    """How a finding counts."""

    OK = "ok"
    NOTE = "--"
    WRONG = "XX"


class Finding(NamedTuple):
    """One sentence of the explanation."""

    mark: Mark
    text: str


class Check(NamedTuple):
    """The result for one webhook: `webhook` if it is valid, otherwise `error`. `signed_by` names the key, for people."""

    webhook: VerifiedWebhook | None
    error: VerificationError | None
    signed_by: str
    findings: tuple[Finding, ...]


class KeySource(NamedTuple):
    """A key set: the address that the verifier fetches, the client that fetches it, and how its keys are named.

    The default client uses the network.
    """

    url: str
    client: httpx.Client | None = None
    label: str = "key"

    @classmethod
    def in_hand(cls, name: str, key_set: bytes, label: str = "key") -> KeySource:
        """A key set that is known already. Nothing is fetched."""
        transport = httpx.MockTransport(lambda request: httpx.Response(200, content=key_set))
        return cls(f"http://{name}.invalid/", httpx.Client(transport=transport), label)


class WebhookChecker:
    """Checks webhooks against key sets and shared secrets (`whsec_…`); one valid signature is enough.

    `tolerance` is in seconds, `clock` returns Unix seconds. May be used by several threads.
    """

    def __init__(
        self,
        sources: Sequence[KeySource],
        secrets: Sequence[str] = (),
        *,
        tolerance: float = TOLERANCE,
        clock: Callable[[], float],
    ) -> None:
        self._secrets = parse_shared_secrets(secrets)
        self._tolerance = tolerance
        self._clock = clock
        # The time is checked apart, so that the explanation includes the signature of a webhook that is too old.
        self._verifiers = [
            WebhookVerifier(source.url, secrets=secrets, tolerance=math.inf, sync_client=source.client, clock=clock)
            for source in sources
        ] or [WebhookVerifier(secrets=secrets, tolerance=math.inf, clock=clock)]
        self._labels = [source.label for source in sources] or ["key"]

    def check(self, headers: HeaderList, body: bytes) -> Check:
        """Check one webhook. Blocks while a key set is fetched."""
        webhook, error = self._verify(headers, body)
        now = self._clock()
        if webhook is not None and abs(now - webhook.timestamp) > self._tolerance:
            error = VerificationError(_time_text(webhook.timestamp, now, self._tolerance))
            webhook = None
        signed_by, findings = self._explain(headers, body, now)
        return Check(webhook, error, signed_by if webhook else "", tuple(findings))

    def _verify(self, headers: HeaderList, body: bytes) -> tuple[VerifiedWebhook | None, VerificationError | None]:
        errors = []
        for verifier in self._verifiers:
            try:
                return verifier.verify_sync(headers, body), None
            except VerificationError as error:
                errors.append(error.with_traceback(None))
        # A key set that cannot be fetched leaves the result open, so it counts before a signature by another key.
        return None, next((error for error in errors if isinstance(error, KeysUnavailable)), errors[0])

    def _explain(self, headers: HeaderList, body: bytes, now: float) -> tuple[str, list[Finding]]:
        try:
            named = extract_headers(headers)
        except VerificationError as error:
            return "", [Finding(Mark.WRONG, error.detail)]
        findings, signed_by = [Finding(Mark.NOTE, _body_text(body))], ""
        for parser, names in FORMATS.items():
            title = "fal's format" if parser is parse_fal else "Standard Webhooks"
            if not any(map(named.get, names)):
                findings.append(Finding(Mark.NOTE, f"{title}: none of its headers is present"))
                continue
            signer, found = self._explain_format(parser, named, body, now)
            signed_by = signed_by or signer
            findings += [Finding(mark, f"{title}: {text}") for mark, text in found]
        return signed_by, findings

    def _explain_format(
        self, parser: Parser, named: dict[bytes, str], body: bytes, now: float
    ) -> tuple[str, list[tuple[Mark, str]]]:
        try:
            message = parser(named, body)
        except VerificationError as error:
            return "", [(Mark.WRONG, error.detail)]
        except UnicodeEncodeError:
            return "", [(Mark.WRONG, "a header is not valid text")]
        is_recent = abs(now - message.timestamp) <= self._tolerance
        findings = [(Mark.OK if is_recent else Mark.WRONG, _time_text(message.timestamp, now, self._tolerance))]
        signers = list(self._signers(message))
        findings += [(Mark.OK, f"signed by {signer}") for signer in signers]
        if not signers:
            findings.append((Mark.WRONG, self._unsigned_text(message)))
            findings += [(Mark.NOTE, text) for text in self._near_misses(parser, named, body)]
        return (signers[0] if signers else ""), findings

    def _signers(self, message: SignedMessage) -> Iterator[str]:
        labels = {key: label for verifier, label in zip(self._verifiers, self._labels, strict=True) for key in verifier.keys}
        for key, label in labels.items():
            if _has_signed(key, message):
                yield f"ed25519, {label} {thumbprint(key)}"
        for number, secret in enumerate(self._secrets, start=1):
            if secret.verify(message.message, message.macs):
                yield f"hmac-sha256, secret {number}"

    def _unsigned_text(self, message: SignedMessage) -> str:
        keys = sum(len(verifier.keys) for verifier in self._verifiers)
        tried = [f"{keys} public keys"] * bool(message.signatures and keys)
        tried += [f"{len(self._secrets)} secrets"] * bool(message.macs and self._secrets)
        if tried:
            return f"the signature is by none of the {' and '.join(tried)}, or the webhook was changed in transit"
        return "there is no key or secret to check this signature with"

    def _near_misses(self, parser: Parser, named: dict[bytes, str], body: bytes) -> Iterable[str]:
        """Changes of the body with which a signature would be valid: they show what changed the webhook on its way."""
        for change, text in _CHANGES:
            changed = change(body)
            if changed is not None and changed != body and any(self._signers(parser(named, changed))):
                yield text
                return


def _has_signed(key: bytes, message: SignedMessage) -> bool:
    for signature in message.signatures:
        try:
            VerifyKey(key).verify(message.message, signature)
        except BadSignatureError:
            continue
        return True
    return False


def _time_text(timestamp: int, now: float, tolerance: float) -> str:
    difference = now - timestamp
    text = f"signed {abs(difference):.0f} s {'ago' if difference >= 0 else 'in the future of this clock'}"
    if abs(difference) <= tolerance:
        return text
    return f"{text}, which is more than {tolerance:g} s; each delivery attempt is signed anew"


def _body_text(body: bytes) -> str:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return f"the body has {len(body)} bytes and is not JSON"
    return f"the body has {len(body)} bytes of JSON"


def _rewritten(**options: object) -> Callable[[bytes], bytes | None]:
    def rewrite(body: bytes) -> bytes | None:
        try:
            return json.dumps(json.loads(body), **options).encode()  # type: ignore[arg-type]
        except (ValueError, RecursionError):
            return None

    return rewrite


_CHANGES: tuple[tuple[Callable[[bytes], bytes | None], str], ...] = (
    (lambda body: re.sub(rb"\r?\n\Z", b"", body), "it is valid without the last line break: the recording added one"),
    (lambda body: body.replace(b"\r\n", b"\n"), "it is valid with LF in place of CR LF: the line breaks were converted"),
    (lambda body: body + b"\n", "it is valid with a line break at the end: the recording removed it"),
    (_rewritten(sort_keys=True), "it is valid as the sender writes JSON: the body was parsed and written again"),
    (_rewritten(), "it is valid with other white space: the body was parsed and written again"),
    (_rewritten(separators=(",", ":")), "it is valid without white space: the body was parsed and written again"),
    (_rewritten(ensure_ascii=False), "it is valid without escapes: the body was parsed and written again"),
)
"""What programs on the way do to a body, and what it means if the signature is valid without that."""
