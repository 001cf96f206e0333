"""Copies of requests in a queue that has instrumentations: each copy is a submission."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context

from queue_middleware.errors import QueueError
from queue_middleware.instrumentation import Instruments, SubmissionWork
from queue_middleware.jobs.models import NewJob

Originals = list[tuple[str, NewJob]]
"""Request id of the original, and the job to submit."""


async def copy_inside(
    instruments: Instruments, originals: Originals, copy: Callable[[Originals], Awaitable[list[str | QueueError]]]
) -> list[str | QueueError]:
    """Call `copy` with all of them, each inside what the instrumentations enter. Raises as `copy` does."""
    works = [SubmissionWork(new, ()) for _, new in originals]
    # Each in a context of its own, because no copy is a part of another one.
    scopes = [(copy_context(), instruments.submission(work)) for work in works]
    for variables, scope in scopes:
        variables.run(scope.__enter__)
    results: Sequence[str | BaseException] = ()
    try:
        results = copied = await copy([(original, work.job) for (original, _), work in zip(originals, works, strict=True)])
    except BaseException as error:
        results = [error] * len(works)
        raise
    finally:
        for work, (variables, scope), result in zip(works, scopes, results, strict=True):
            if isinstance(result, BaseException):
                variables.run(scope.__exit__, type(result), result, result.__traceback__)
            else:
                work.request_id = result
                variables.run(scope.__exit__, None, None, None)
    return copied
