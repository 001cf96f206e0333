"""Decides whether a job completes with its target's response or keeps waiting for a callback, signal or poll."""

from __future__ import annotations

from queue_middleware.jobs.models import ErrorType, Failure, Headers, StoredRequest, StoredResponse
from queue_middleware.jobs.task_spec import Task, TaskSpec

from .models import Wait
from .polling.config import LOCATION_POLLING
from .polling.schedule import first_poll_delay

_OF_ONE_CALL = frozenset({b"host", b"content-type", b"content-length", b"content-encoding", b"accept-encoding"})


def decide_wait(
    outcome: StoredResponse | Failure, spec: TaskSpec, request: StoredRequest, now: float, *, callback_requested: bool = False
) -> Wait | None:
    """What the job waits for after this outcome of its call; None if the outcome ends the job.

    A job waits only after a 2xx: a target that refuses has started no work. `callback_requested`: the handler has asked for
    its callback URL. If a callback or a signal is expected, there are two polls, at half of the time and at its end, in case
    it gets lost. `now` is in Unix seconds.
    """
    if isinstance(outcome, Failure) or not 200 <= outcome.status < 300:
        return None
    expects_call = spec.callback or spec.signal or callback_requested
    follows = spec.poll is None and spec.is_external and _names_location(outcome)
    config = LOCATION_POLLING if follows else spec.poll
    if config is None:
        return Wait(spec.wait_timeout) if expects_call else None
    seconds = max(spec.wait_timeout, config.max_duration) if follows and not expects_call else spec.wait_timeout
    poll_in = first_poll_delay(config.interval, seconds, outcome.headers, now, expects_call=expects_call)
    credentials = _repeated_headers(request.headers) if config.forward_auth else ()
    return Wait(seconds, poll_in, config if follows else None, credentials)


def limit_wait(wait: Wait, max_seconds: float) -> Wait:
    """The same wait, limited to `max_seconds`, with its first poll within them."""
    if wait.seconds <= max_seconds:
        return wait
    return wait.replace(seconds=max_seconds, poll_in=None if wait.poll_in is None else min(wait.poll_in, max_seconds))


def final_outcome(outcome: StoredResponse | Failure, task: Task) -> StoredResponse | Failure:
    """The final outcome of a job whose call leaves nothing to wait for.

    If the task was to wait, a 3xx that is not followed becomes a failure, because no work was started. A 4xx stays a response:
    it says by itself what is wrong.
    """
    spec = task.spec
    if isinstance(outcome, Failure) or not 300 <= outcome.status < 400:
        return outcome
    if not task.is_listed or not (spec.callback or spec.signal or spec.poll):
        return outcome
    return Failure(ErrorType.RUNNER_SERVER_ERROR, f"the target responded with {outcome.status}, so no work was started")


def _names_location(response: StoredResponse) -> bool:
    return response.status == 202 and any(name == b"location" for name, _ in response.headers)


def _repeated_headers(headers: Headers) -> Headers:
    """The headers that a provider requires with every call: API keys and API versions."""
    return tuple(pair for pair in headers if pair[0] not in _OF_ONE_CALL)
