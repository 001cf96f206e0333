"""What an answer leaves a job waiting for: the law, from a task and an answer to a wait or to none."""

from __future__ import annotations

from .models import Failure, Headers, StoredRequest, StoredResponse, TaskSpec
from .tasks import Wait

_OF_ONE_CALL = frozenset({b"host", b"content-type", b"content-length", b"content-encoding", b"accept-encoding"})


def wait_after(
    outcome: StoredResponse | Failure, spec: TaskSpec, request: StoredRequest, *, asked: bool = False
) -> Wait | None:
    """What the job waits for after this outcome of its call; None where that is its end.

    Only after a 2xx: a target that refuses has given nobody anything to do. `asked`: the handler has asked for its callback
    URL. With a callback or a signal the polls are for the case that it gets lost: one at half the time, one at its end.
    """
    if isinstance(outcome, Failure) or not 200 <= outcome.status < 300:
        return None
    awaits_word = spec.callback or spec.signal or asked
    if spec.poll is None:
        return Wait(spec.wait) if awaits_word else None
    credentials = _credentials(request.headers) if spec.poll.forward_auth else ()
    return Wait(spec.wait, spec.wait / 2 if awaits_word else spec.poll.interval, credentials=credentials)


def _credentials(headers: Headers) -> Headers:
    """What a provider wants to see at every call: keys, and versions of his interface too."""
    return tuple(pair for pair in headers if pair[0] not in _OF_ONE_CALL)
