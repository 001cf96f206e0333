"""fal's queue, as it is spelled on the wire: the call that is queued, and what we answer (fal queue contract, 2 to 6)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus, unquote_to_bytes

from queue_middleware.ends import run_time
from queue_middleware.errors import BadRequest, UriTooLong
from queue_middleware.models import Job, JobState

from .failures import error_type
from .links import Links, around_id
from .routes import REMEMBERED

LONGEST_TARGET = 2048
"""Bytes of path and query of the call that is queued."""

LONGEST_QUERY = 16 * 1024
"""Bytes of a query with our own parameters in it. Some servers take megabytes, and reading them is work of seconds."""

_PLAIN = re.compile(r"(/[A-Za-z0-9_~-]+)+/?")
"""A path with nothing in it that could be misunderstood; nearly all are."""


# --- the call that is queued


@lru_cache(maxsize=256)
def check_target(target: str, prefix: str) -> None:
    """Refuse paths that mean something else to somebody on the way (percent-encoded `target`). Raises `BadRequest`.

    An encoded slash is legal and reaches the application as it would directly.
    """
    if _PLAIN.fullmatch(target) and not target.startswith(prefix):
        return
    if "\\" in target or re.search(r"[\x00-\x20\x7f]", target):
        raise BadRequest("the path holds a backslash, a space or a control character")
    for segment in target.split("/")[1:-1]:
        if not segment:
            raise BadRequest("the path holds an empty segment ('//')")
    decoded = unquote_to_bytes(target)
    if re.search(rb"[\x00-\x1f\x7f\\]", decoded):
        raise BadRequest("the path holds a backslash or a control character, percent-encoded")
    words = decoded.split(b"/")
    if b"." in words or b".." in words:
        raise BadRequest("the path holds a '.' or '..' segment")
    mine = prefix.encode()
    if decoded == mine or decoded.startswith(mine + b"/"):
        raise BadRequest("a queue route cannot be queued")


def split_query(query: bytes) -> tuple[bytes, Mapping[str, str]]:
    """The query that the application sees, byte for byte, and the `fal_*` parameters, which are ours.

    Raises `BadRequest`, `UriTooLong`.
    """
    if b"fal_" not in query and b"%" not in query:
        return query, {}
    check_query(query)
    theirs: list[bytes] = []
    ours: dict[str, str] = {}
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        word = unquote_plus(name.decode("latin-1"))
        if not word.startswith("fal_"):
            theirs.append(part)
        elif word in ours:
            raise BadRequest(f"the query parameter {word} is given more than once")
        else:
            ours[word] = unquote_plus(value.decode("latin-1"))
    return b"&".join(theirs), ours


def check_query(query: bytes) -> None:
    """Raises `UriTooLong`."""
    if len(query) > LONGEST_QUERY:
        raise UriTooLong(f"the query is longer than {LONGEST_QUERY} bytes")


def check_length(target: str, query: bytes) -> None:
    """Raises `UriTooLong`."""
    if len(target) + len(query) > LONGEST_TARGET:
        raise UriTooLong(f"path and query of the queued call are longer than {LONGEST_TARGET} bytes")


# --- what we answer

_STATUS = {
    JobState.QUEUED: "IN_QUEUE",
    JobState.DELAYED: "IN_QUEUE",
    JobState.RUNNING: "IN_PROGRESS",
    JobState.WAITING: "IN_PROGRESS",
}

CANCEL_REQUESTED = b'{"status": "CANCELLATION_REQUESTED"}'
ALREADY_COMPLETED = b'{"status": "ALREADY_COMPLETED"}'
NOT_FOUND = b'{"status": "NOT_FOUND"}'


def wants_logs(query: bytes) -> bool:
    """`logs=1` or `logs=true`."""
    return any(part in (b"logs=1", b"logs=true") for part in query.lower().split(b"&"))


def _body(status: str, request_id: str, links: Links, rest: str) -> bytes:
    around = around_id if len(links.base) < REMEMBERED else around_id.__wrapped__
    response, status_url, cancel, end = around(links)
    return (
        f'{{"status": "{status}", "request_id": "{request_id}{response}{request_id}{status_url}{request_id}'
        f"{cancel}{request_id}{end}{rest}}}"
    ).encode("ascii")


def submitted_body(request_id: str, position: int, links: Links) -> bytes:
    """The answer to a submission (section 2)."""
    rest = f'null, "metrics": {{}}, "queue_position": {position}, "gateway_request_id": "{request_id}"'
    return _body("IN_QUEUE", request_id, links, rest)


def status_body(job: Job, links: Links, entries: str | None = None) -> bytes:
    """The answer to a status request (section 3): ASCII JSON, the keys in the recorded order.

    `logs` is the array of `entries` (see `logs.entries_json`), or null where they were not asked for.
    """
    rest = f'{"null" if entries is None else f"[{entries}]"}, "metrics": {json.dumps(_metrics(job))}'
    rest += "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in _extras(job))
    return _body(_STATUS.get(job.state, "COMPLETED"), job.request_id, links, rest)


def is_over(job: Job) -> bool:
    """Whether the status is COMPLETED, which is answered 200; everything before it 202."""
    return job.state not in _STATUS


def _metrics(job: Job) -> dict[str, float]:
    milliseconds = None if job.state in _STATUS else run_time(job)
    return {} if milliseconds is None else {"inference_time": milliseconds / 1000}


def _extras(job: Job) -> Iterable[tuple[str, Any]]:
    if job.position is not None:
        yield "queue_position", job.position
    if job.state in (JobState.RUNNING, JobState.WAITING) and job.progress is not None:
        yield "progress", {"fraction": job.progress.fraction, "stage": job.progress.stage}
    if job.failure is not None:
        yield "error", job.failure.detail
        yield "error_type", error_type(job.failure)
    elif job.status is not None and not 200 <= job.status < 300:
        yield "error", f"Invalid status code: {job.status}"
