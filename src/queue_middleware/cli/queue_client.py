"""A client of a running queue, for `submit`: submissions, the status stream with reconnection, responses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from queue_middleware.backoff import exponential
from queue_middleware.jobs.ids import is_request_id

from .exit_codes import CommandError, NothingMatched, NotUnderstood, Unreachable
from .service import shown_url, user_agent

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_SILENCE = 40.0
"""Seconds without a byte after which a stream is broken; the queue sends one every 15 seconds."""
PATIENCE = 120.0
"""Seconds for which a service that does not respond is tried again: longer than a restart."""
_LONGEST_PAUSE = 5.0
_LONGEST_DETAIL = 500

Event = dict[str, Any]
"""A status, as on the reference page of the routes."""


class Submission(NamedTuple):
    """A call that the queue is to make later."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    webhook: str | None = None
    webhook_events: str | None = None


class _Position:
    """What of a stream has arrived: after a reconnection, log entries that were sent before are not sent again."""

    last_id = ""


class WaitIsOver(Exception):
    """The time that was given for waiting is over."""


class QueueClient:
    """`url` is that of the queue's routes. `sleep` and `monotonic` are for tests, `transport` too."""

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._shown_url = shown_url(url)
        self._sleep = sleep
        self._monotonic = monotonic
        self._client = httpx.Client(headers={**user_agent(), **headers}, timeout=_TIMEOUT, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def submit(self, submission: Submission) -> tuple[str, bool]:
        """Submit. Returns the request id, and whether an earlier submission with the same key had created the request.

        Raises `CommandError` if the queue refuses it, and `Unreachable`.
        """
        headers = [(name.encode(), value.encode()) for name, value in submission.headers]
        try:
            target = httpx.URL(_target(self._url, submission))
            response = self._client.request(submission.method, target, headers=headers, content=submission.body)
        except httpx.InvalidURL as error:
            raise NotUnderstood(f"the path is not valid: {error}") from None
        except httpx.HTTPError as error:
            is_safe = any(name.lower() == b"idempotency-key" for name, _ in headers) or isinstance(error, httpx.ConnectError)
            doubt = "" if is_safe else "; it is not known whether the request was stored (--idempotency-key makes this safe)"
            raise Unreachable(f"{self._failed(error)}{doubt}") from None
        if response.status_code != 200:
            raise self._refusal(response)
        request_id = _json(response).get("request_id")
        if not isinstance(request_id, str) or not is_request_id(request_id):
            raise CommandError(f"{self._shown_url} is not a queue: the URL is that of its routes, e.g. https://…/fal/queue")
        return request_id, response.headers.get("idempotency-replayed") == "true"

    def events(self, request_id: str, seconds: float | None) -> Iterator[Event]:
        """The status at each change, with new log entries in `logs`; the last one is COMPLETED.

        Reconnects for `PATIENCE` seconds. Raises `WaitIsOver` after `seconds`, `NothingMatched`, `CommandError`, `Unreachable`.
        """
        now = self._monotonic()
        deadline = None if seconds is None else now + seconds
        position, failures, reached_at = _Position(), 0, now
        while True:
            reason = "the status stream ended"
            try:
                for event in self._stream(request_id, position, deadline):
                    failures, reached_at = 0, self._monotonic()
                    yield event
                    if event.get("status") == "COMPLETED":
                        return
            except (httpx.HTTPError, ValueError) as error:
                reason = self._failed(error)
            self._check_deadline(deadline)
            if self._monotonic() - reached_at > PATIENCE:
                raise Unreachable(reason)
            failures += 1
            self._sleep(self._bounded(exponential(failures, longest=_LONGEST_PAUSE), deadline))

    @contextmanager
    def response(self, request_id: str) -> Iterator[httpx.Response]:
        """The response of a completed request; its body is not read yet. Raises `Unreachable`, `CommandError`."""
        try:
            with self._client.stream("GET", f"{self._url}/requests/{request_id}/response") as response:
                if "x-fal-request-id" not in response.headers:
                    response.read()
                    raise self._refusal(response)
                yield response
        except httpx.HTTPError as error:
            raise Unreachable(self._failed(error)) from None

    def _stream(self, request_id: str, position: _Position, deadline: float | None) -> Iterator[Event]:
        """The events of one connection."""
        headers = {"accept": "text/event-stream", "cache-control": "no-cache"}
        if position.last_id:
            headers["last-event-id"] = position.last_id
        silence = self._bounded(_SILENCE, deadline)
        url, timeout = f"{self._url}/requests/{request_id}/status/stream?logs=1", httpx.Timeout(silence, connect=10.0)
        with self._client.stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.status_code != 200:
                response.read()
                if response.status_code in (502, 503, 504):
                    raise httpx.TransportError(_detail(response))
                raise self._refusal(response)
            event: Event = {}
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "data":
                    event = _parse_event(value)
                elif name == "id":
                    position.last_id = value
                elif not line and event:
                    yield event
                    event = {}
                self._check_deadline(deadline)

    def _check_deadline(self, deadline: float | None) -> None:
        if deadline is not None and self._monotonic() >= deadline:
            raise WaitIsOver

    def _bounded(self, seconds: float, deadline: float | None) -> float:
        return seconds if deadline is None else max(0.01, min(seconds, deadline - self._monotonic()))

    def _refusal(self, response: httpx.Response) -> CommandError:
        status, detail = response.status_code, _detail(response)
        if status == 404 and "/requests/" in response.request.url.path:
            return NothingMatched(detail)
        if status in (502, 503, 504):
            return Unreachable(f"the service responded with {status}: {detail}")
        if response.is_redirect:
            return CommandError(f"the service responded with {status}, a redirect; give its new address with --url")
        return CommandError(f"the service responded with {status}: {detail}")

    def _failed(self, error: Exception) -> str:
        return f"{self._shown_url} cannot be reached: {error or type(error).__name__}"


def _target(url: str, submission: Submission) -> str:
    """The URL of the submission. Raises `NotUnderstood`."""
    path = submission.path if submission.path.startswith("/") else f"/{submission.path}"
    if "#" in path:
        raise NotUnderstood("the path contains '#', which is not sent; write it as %23")
    options = {"fal_webhook": submission.webhook, "fal_webhook_events": submission.webhook_events}
    added = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items() if value is not None)
    return f"{url}/submit{path}" + (("&" if "?" in path else "?") + added if added else "")


def _parse_event(text: str) -> Event:
    """Raises `ValueError` for what is not a status."""
    try:
        event = json.loads(text)
    except RecursionError:
        event = None
    if not isinstance(event, dict):
        raise ValueError("the status stream contains something else")
    return event


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _detail(response: httpx.Response) -> str:
    detail = _json(response).get("detail")
    return detail if isinstance(detail, str) else response.text[:_LONGEST_DETAIL].strip() or response.reason_phrase
