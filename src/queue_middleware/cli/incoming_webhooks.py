"""What `listen` does with each webhook: check it, forward it, choose the response, and describe both on one line."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import httpx

from queue_middleware.background import run_in_thread
from queue_middleware.jobs.struct import Struct

from .loopback_server import Received, Reply
from .webhook_check import Check, Mark, WebhookChecker

_LONGEST_KIND = 80
_KNOWN = 10_000
"""Webhooks of which the number of attempts is remembered."""
_FORWARD_TIMEOUT = 60.0
_NOT_FORWARDED = frozenset(
    {"host", "content-length", "connection", "transfer-encoding", "keep-alive", "te", "upgrade", "expect"}
)


class Arrival(Struct, frozen=True):
    """One delivery attempt and the response to it."""

    at: int
    """Milliseconds since 1970."""
    request_id: str
    webhook_id: str
    """This, the request id and the kind are those that the sender states; believe them only if `valid`."""
    kind: str
    attempt: int
    """1 for the first attempt of this webhook that arrived here."""
    status: int
    """Of the response."""
    note: str
    """Why the response has this status; empty if the webhook was accepted."""
    valid: bool
    reason: str
    """Why it is not valid; empty if it is."""
    signed_by: str
    age: int | None
    """Seconds between the signature and the arrival."""
    explanation: list[str]
    """For a webhook that is not valid: what does not fit, and what would."""
    body: str


class Plan(NamedTuple):
    """How `listen` responds to valid webhooks."""

    statuses: Sequence[int]
    """Of the responses to the first, second … attempt of each webhook; the last one is repeated."""
    delay: float
    """Seconds before each response."""
    forward_to: str | None


class IncomingWebhooks:
    """Handles webhooks one by one or at the same time. `report` gets each arrival, `key_set` is served to receivers."""

    def __init__(
        self,
        checker: WebhookChecker,
        plan: Plan,
        key_set: bytes | None,
        report: Callable[[Arrival], None],
        clock: Callable[[], float],
    ) -> None:
        self._checker = checker
        self._plan = plan
        self._key_set = key_set
        self._report = report
        self._clock = clock
        self._attempts: OrderedDict[str, int] = OrderedDict()

    async def handle(self, received: Received) -> Reply:
        """The response to one request."""
        if received.method == "GET" and received.target.endswith("/jwks.json") and self._key_set is not None:
            return Reply(200, self._key_set, "application/json")
        if received.method != "POST":
            return Reply(405, b"this is a receiver of webhooks, which are sent with POST")
        now = self._clock()
        check = await run_in_thread(self._checker.check, received.headers, received.body)
        webhook_id = _webhook_id(check, received)
        attempt = self._count(webhook_id) if check.webhook else 1
        reply, note = await self._respond(received, check, attempt)
        self._report(_arrival(received, check, attempt, webhook_id, now, reply.status, note))
        return reply

    async def _respond(self, received: Received, check: Check, attempt: int) -> tuple[Reply, str]:
        if check.error is not None:
            return Reply(check.error.status, check.error.detail.encode()), "refused"
        if self._plan.delay:
            await asyncio.sleep(self._plan.delay)
        statuses = self._plan.statuses
        status = statuses[min(attempt, len(statuses)) - 1]
        if not 200 <= status < 300:
            return Reply(status), "by --answer"
        if self._plan.forward_to is None:
            return Reply(status), ""
        return await self._forward(self._plan.forward_to, received)

    async def _forward(self, url: str, received: Received) -> tuple[Reply, str]:
        headers = [
            (name.encode(), value.encode("latin-1")) for name, value in received.headers if name.lower() not in _NOT_FORWARDED
        ]
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=_FORWARD_TIMEOUT) as client:
                response = await client.post(url, content=received.body, headers=headers)
        except httpx.HTTPError as error:
            text = f"cannot forward it: {error or type(error).__name__}"
            return Reply(502, text.encode()), text
        content_type = response.headers.get("content-type", "application/octet-stream")
        return Reply(response.status_code, response.content, content_type), "forwarded"

    def _count(self, webhook_id: str) -> int:
        attempt = self._attempts.pop(webhook_id, 0) + 1
        self._attempts[webhook_id] = attempt
        if len(self._attempts) > _KNOWN:
            self._attempts.popitem(last=False)
        return attempt


def _arrival(received: Received, check: Check, attempt: int, webhook_id: str, now: float, status: int, note: str) -> Arrival:
    request_id = check.webhook.request_id if check.webhook else _header(received, "x-fal-webhook-request-id")
    return Arrival(
        at=int(now * 1000),
        request_id=request_id,
        webhook_id=webhook_id,
        kind=_kind(received.body)[:_LONGEST_KIND].encode("utf-8", "replace").decode(),
        attempt=attempt,
        status=status,
        note=note,
        valid=check.webhook is not None,
        reason="" if check.error is None else check.error.detail,
        signed_by=check.signed_by,
        age=int(now) - check.webhook.timestamp if check.webhook else None,
        explanation=[] if check.webhook else [text for mark, text in check.findings if mark is not Mark.OK],
        body=received.body.decode("utf-8", "replace"),
    )


def _webhook_id(check: Check, received: Received) -> str:
    return check.webhook.webhook_id if check.webhook else _header(received, "webhook-id")


def _header(received: Received, wanted: str) -> str:
    return next((value for name, value in received.headers if name.lower() == wanted), "")


def _kind(body: bytes) -> str:
    """What the body reports, e.g. `completed`, `failed`, `started`, `progress 40 % refine`; `webhook` for other senders.

    The body may be that of any sender.
    """
    try:
        content = json.loads(body, parse_int=float)  # a fraction may have hundreds of digits
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(content, dict):
        return "webhook"
    kind = str(content.get("type") or "").removeprefix("request.")
    if kind == "progress" and isinstance(progress := content.get("progress"), dict):
        return _progress_text(progress)
    if kind or "status" not in content:
        return kind or "webhook"
    return "failed" if content["status"] in ("ERROR", "FAILED") else "completed"


def _progress_text(progress: dict[str, object]) -> str:
    fraction, stage = progress.get("fraction"), progress.get("stage")
    percent = f"{fraction:.0%}".replace("%", " %") if isinstance(fraction, int | float) else ""
    return " ".join(("progress", percent, str(stage or ""))).strip()
