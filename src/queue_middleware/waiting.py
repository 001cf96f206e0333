"""What an answer leaves a job waiting for: the law, from a task and an answer to a wait or to none."""

from __future__ import annotations

from .cadence import first_question
from .models import ErrorType, Failure, Headers, StoredRequest, StoredResponse
from .tasks import Wait
from .taskspec import PollConfig, Task, TaskSpec

COMMON_FAILURES = ("failed", "failure", "error", "errored", "canceled", "cancelled", "aborted")
"""Words that mean the same from everybody. (What says `rejected` may be a decision, and somebody's result.)"""

FOLLOW = PollConfig(
    url_template="{startResult.headers.location}",
    status_path="status",
    done_values=(),
    fail_values=(*COMMON_FAILURES, "rejected"),
    running_values=(
        "accepted", "in-progress", "in_progress", "inprogress", "not_started", "notstarted", "pending", "processing", "queued",
        "running", "scheduled", "started", "starting", "submitted", "waiting", "working",
    ),
)  # fmt: skip
"""How a 202 with `Location` is asked for its end without any configuration (AsyncQueue contract, better 12).

202 means not yet, everything else that succeeds means done, unless it has a `status` that everybody would read otherwise.
"""

_OF_ONE_CALL = frozenset({b"host", b"content-type", b"content-length", b"content-encoding", b"accept-encoding"})


def wait_after(
    outcome: StoredResponse | Failure, spec: TaskSpec, request: StoredRequest, now: float, *, asked: bool = False
) -> Wait | None:
    """What the job waits for after this outcome of its call; None where that is its end.

    Only after a 2xx: a target that refuses has given nobody anything to do. `asked`: the handler has asked for its callback
    URL. With a callback or a signal the polls are for the case that it gets lost: one at half the time, one at its end. `now`
    in Unix seconds.
    """
    if isinstance(outcome, Failure) or not 200 <= outcome.status < 300:
        return None
    awaits_word = spec.callback or spec.signal or asked
    own = FOLLOW if spec.poll is None and spec.outside and _says_where(outcome) else None
    config = spec.poll or own
    if config is None:
        return Wait(spec.wait) if awaits_word else None
    seconds = spec.wait if own is None or awaits_word else max(spec.wait, own.max_duration)
    poll_in = first_question(config.interval, seconds, outcome.headers, now, word_awaited=awaits_word)
    return Wait(seconds, poll_in, own, _credentials(request.headers) if config.forward_auth else ())


def shortened(wait: Wait, most: float) -> Wait:
    """The same, but over after `most` seconds at the latest, and with its first poll by then."""
    if wait.seconds <= most:
        return wait
    return wait.replace(seconds=most, poll_in=None if wait.poll_in is None else min(wait.poll_in, most))


def end_of_call(outcome: StoredResponse | Failure, task: Task) -> StoredResponse | Failure:
    """What an outcome that leaves the job waiting for nothing is worth.

    Of a task that was to wait a 3xx that leads nowhere is a failure: nobody has been given anything to do. A 4xx says it.
    """
    spec = task.spec
    if isinstance(outcome, Failure) or not 300 <= outcome.status < 400:
        return outcome
    if not task.listed or not (spec.callback or spec.signal or spec.poll):
        return outcome
    return Failure(ErrorType.RUNNER_SERVER_ERROR, f"the target answered {outcome.status}, so nobody has begun the work")


def _says_where(answer: StoredResponse) -> bool:
    return answer.status == 202 and any(name == b"location" for name, _ in answer.headers)


def _credentials(headers: Headers) -> Headers:
    """What a provider wants to see at every call: keys, and versions of his interface too."""
    return tuple(pair for pair in headers if pair[0] not in _OF_ONE_CALL)
