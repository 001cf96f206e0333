"""The statuses of Sentry's transactions, and which requests carry a trace."""

from __future__ import annotations

import contextvars
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_middleware.instrumentation import AttemptWork, SubmissionWork
from queue_middleware.jobs.models import Claim, ErrorType, Failure, RetryPolicy, StoredResponse
from queue_middleware.jobs.outcomes import CANCELLED
from queue_middleware.jobs.task_spec import Task
from queue_middleware.observability.sentry import SentryObserver
from queue_middleware.tasks.polling.config import LOCATION_POLLING
from tests.support.factories import make_job, make_request, make_response, make_task
from tests.support.sentry import Sent, reporting

ROOT = Path(__file__).parents[3]


@pytest.fixture
def sent() -> Iterator[Sent]:
    with reporting() as sent:
        yield sent


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (make_response(), "ok"),
        (make_response(status=404), "ok"),
        (make_response(status=500), "internal_error"),
        (Failure(ErrorType.RUNNER_SERVER_ERROR, "it raised"), "internal_error"),
        (Failure(ErrorType.REQUEST_TIMEOUT, "it took too long"), "deadline_exceeded"),
        (CANCELLED, "cancelled"),
        (None, "aborted"),
    ],
)
def test_the_status_of_an_attempt(outcome: StoredResponse | Failure | None, status: str, sent: Sent) -> None:
    work = AttemptWork(Claim(1, "r", 1, 1, RetryPolicy(3), make_request(), None), 0.5)
    with SentryObserver().attempt(work):
        work.outcome = outcome
    (process,) = sent.transactions("queue.process")
    assert process["contexts"]["trace"]["status"] == status
    assert process["contexts"]["trace"]["data"]["messaging.message.receive.latency"] == 500


@pytest.mark.parametrize(
    ("task", "carries"),
    [
        (None, True),
        (make_task(), True),
        (make_task(is_external=True, target="https://provider.test/"), False),
        (make_task(poll=LOCATION_POLLING), False),
    ],
)
def test_only_requests_of_the_application_carry_a_trace(task: Task | None, carries: bool, sent: Sent) -> None:
    job = make_job(task=task)
    work = SubmissionWork(job, job.request.headers)
    with SentryObserver().submission(work):
        assert (b"sentry-trace" in dict(work.job.request.headers)) == carries
        assert (work.job.request == job.request) == (not carries)


def test_an_attempt_may_be_closed_in_another_context(sent: Sent) -> None:
    work = AttemptWork(Claim(1, "r", 1, 1, RetryPolicy(3), make_request(), None), 0.5)
    manager = SentryObserver().attempt(work)
    contextvars.copy_context().run(manager.__enter__)
    assert not manager.__exit__(None, None, None)
    assert len(sent.transactions("queue.process")) == 1


def test_the_page_names_the_oldest_version_that_the_extra_accepts() -> None:
    (oldest,) = re.findall(r'"sentry-sdk>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert f"`sentry-sdk` {oldest} or later" in (ROOT / "docs" / "how-to" / "sentry.md").read_text()
