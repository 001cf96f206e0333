"""Response bodies of fal's queue (docs/reference/protocols/fal.md, sections 2 to 7)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from queue_middleware.errors import QueueError, StillInProgress
from queue_middleware.jobs.failures import error_type
from queue_middleware.jobs.models import Headers, Job, JobState
from queue_middleware.jobs.outcomes import run_time
from queue_middleware.jobs.struct import Struct
from queue_middleware.web.preferences import VARY

_MAX_CACHED_BASE = 512
"""Characters. The parts of shorter URLs are cached, because clients poll the same ones."""

_STATUS = {
    JobState.QUEUED: "IN_QUEUE",
    JobState.DELAYED: "IN_QUEUE",
    JobState.RUNNING: "IN_PROGRESS",
    JobState.AWAITING: "IN_PROGRESS",
}

CANCEL_REQUESTED = b'{"status": "CANCELLATION_REQUESTED"}'
ALREADY_COMPLETED = b'{"status": "ALREADY_COMPLETED"}'
NOT_FOUND = b'{"status": "NOT_FOUND"}'


def wants_logs(query: bytes) -> bool:
    """`logs=1` or `logs=true`."""
    return any(part in (b"logs=1", b"logs=true") for part in query.lower().split(b"&"))


class Links(Struct, frozen=True):
    """The URLs under which one client finds its requests."""

    base: str
    """URL in front of `/requests/{id}`: the URL of the prefix, or in the queue form that of the app."""
    response_end: str = "/response"
    """Suffix of `/requests/{id}` in the URL of the response; empty in the queue form."""


@lru_cache(maxsize=256)
def link_parts(links: Links) -> tuple[str, str, str, str]:
    """The JSON after each of the four request ids: up to each of the three URLs, and up to the value of `logs`.

    `public_url` can hold a quote, so it is escaped.
    """
    text = json.dumps(links.base)[1:-1]
    return (
        f'", "response_url": "{text}/requests/',
        f'{links.response_end}", "status_url": "{text}/requests/',
        f'/status", "cancel_url": "{text}/requests/',
        '/cancel", "logs": ',
    )


def _body(status: str, request_id: str, links: Links, rest: str) -> bytes:
    link_texts = link_parts if len(links.base) < _MAX_CACHED_BASE else link_parts.__wrapped__
    response, status_url, cancel, end = link_texts(links)
    return (
        f'{{"status": "{status}", "request_id": "{request_id}{response}{request_id}{status_url}{request_id}'
        f"{cancel}{request_id}{end}{rest}}}"
    ).encode("ascii")


def submitted_body(request_id: str, position: int, links: Links) -> bytes:
    """The response to a submission (section 2)."""
    rest = f'null, "metrics": {{}}, "queue_position": {position}, "gateway_request_id": "{request_id}"'
    return _body("IN_QUEUE", request_id, links, rest)


def receipt_body(job: Job, links: Links) -> bytes:
    """The response to a submission whose job may have started or ended: the present status, with the keys of a submission."""
    rest = f'null, "metrics": {json.dumps(_metrics(job))}{_extras_text(job)}, "gateway_request_id": "{job.request_id}"'
    return _body(status_of(job), job.request_id, links, rest)


def status_body(job: Job, links: Links, entries: str | None = None) -> bytes:
    """The response to a status request (section 3): ASCII JSON, the keys in fal's order.

    `logs` is the array of `entries`, which are rendered JSON objects, or null if the client did not ask for them.
    """
    rest = f'{"null" if entries is None else f"[{entries}]"}, "metrics": {json.dumps(_metrics(job))}'
    rest += _extras_text(job)
    return _body(status_of(job), job.request_id, links, rest)


def status_of(job: Job) -> str:
    """The status in fal's protocol."""
    return _STATUS.get(job.state, "COMPLETED")


def is_over(job: Job) -> bool:
    """Whether the status is COMPLETED, which is served with 200; earlier ones are served with 202."""
    return job.state not in _STATUS


def _metrics(job: Job) -> dict[str, float]:
    milliseconds = None if job.state in _STATUS else run_time(job)
    return {} if milliseconds is None else {"inference_time": milliseconds / 1000}


def _extras_text(job: Job) -> str:
    return "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in _extras(job))


def _extras(job: Job) -> Iterable[tuple[str, Any]]:
    if job.position is not None:
        yield "queue_position", job.position
    if job.state in (JobState.RUNNING, JobState.AWAITING) and job.progress is not None:
        yield "progress", {"fraction": job.progress.fraction, "stage": job.progress.stage}
    if job.failure is not None:
        yield "error", job.failure.detail
        yield "error_type", error_type(job.failure)
    elif job.status is not None and not 200 <= job.status < 300:
        yield "error", f"Invalid status code: {job.status}"


_ERROR_TYPES = {400: "bad_request", 500: "internal_error"}
"""fal's error types of requests that the queue itself refuses, by status; other statuses have none."""


def error_response(error: QueueError) -> tuple[bytes, Headers]:
    """Body and headers for an error of the queue: `{"detail": …}`, with `error_type` where fal has one for the status."""
    kind = None if isinstance(error, StillInProgress) else _ERROR_TYPES.get(error.status)
    if kind is None:
        headers = (*error.headers, VARY) if isinstance(error, StillInProgress) else error.headers
        return json.dumps({"detail": error.detail}).encode("ascii"), headers
    body = json.dumps({"detail": error.detail, "error_type": kind}).encode("ascii")
    return body, (*error.headers, (b"x-fal-error-type", kind.encode("ascii")))
