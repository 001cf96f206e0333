"""Copies of requests: each is inside what an instrumentation enters for a submission, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from queue_middleware.errors import QueueError, QueueFull, StoreBusy
from queue_middleware.instrumentation import Instrumentation, SubmissionWork
from queue_middleware.observability.instrumentation import combine
from queue_middleware.runtime.instrumented_copies import Originals, copy_inside
from tests.support.doubles import EventRecorder
from tests.support.factories import make_job

active: ContextVar[str] = ContextVar("active", default="nothing")


class Noting(Instrumentation):
    """Replaces the route of a copy, and notes how its submission ends, and inside which other one it began."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str, str]] = []

    @contextmanager
    def submission(self, work: SubmissionWork) -> Iterator[None]:
        outside = active.get()
        token = active.set(work.job.route)
        work.job = work.job.replace(route=f"{work.job.route}/noted")
        try:
            yield
        except QueueError as error:
            self.ends.append((work.job.route, outside, type(error).__name__))
            raise
        else:
            self.ends.append((work.job.route, outside, work.request_id))
        finally:
            active.reset(token)


async def copied(noting: Noting, copy: Any) -> list[str | QueueError]:
    store: Any = None
    events = EventRecorder()
    instruments = combine((noting,), store, events.on_event)
    assert instruments is not None
    originals: Originals = [("one", make_job(route="/a")), ("other", make_job(route="/b"))]
    try:
        return await copy_inside(instruments, originals, copy)
    finally:
        assert events.events == []
        assert active.get() == "nothing"


async def test_each_copy_ends_in_its_own_way() -> None:
    noting, full = Noting(), QueueFull("full", 5)

    async def copy(given: Originals) -> list[str | QueueError]:
        assert [(original, job.route) for original, job in given] == [("one", "/a/noted"), ("other", "/b/noted")]
        return ["copy", full]

    assert await copied(noting, copy) == ["copy", full]
    assert noting.ends == [("/a/noted", "nothing", "copy"), ("/b/noted", "nothing", "QueueFull")]


async def test_an_error_of_the_store_ends_all() -> None:
    noting = Noting()

    async def copy(given: Originals) -> list[str | QueueError]:
        raise StoreBusy("busy", 5)

    with pytest.raises(StoreBusy):
        await copied(noting, copy)
    assert noting.ends == [("/a/noted", "nothing", "StoreBusy"), ("/b/noted", "nothing", "StoreBusy")]
