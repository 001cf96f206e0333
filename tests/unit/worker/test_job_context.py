from __future__ import annotations

import contextvars

import pytest

from queue_middleware import current_job
from queue_middleware.jobs.log_lines import MAX_LABEL_LENGTH, LogLevel
from queue_middleware.worker.job_context import ActiveJob, activate, active_job
from tests.support.execution import FakeExecution


@pytest.fixture
def execution() -> FakeExecution:
    return FakeExecution()


def during(execution: FakeExecution, call: object, *arguments: object, **options: object) -> object:
    def run() -> object:
        activate(execution.job)
        assert active_job() is execution.job
        return call(*arguments, **options)  # type: ignore[operator]

    return contextvars.Context().run(run)


def test_a_line_has_a_level_and_labels(execution: FakeExecution) -> None:
    during(execution, current_job.log, "one")
    during(execution, current_job.log, 2, level="warning", step=3, message="a label may have any name")
    during(execution, current_job.log, "three", 40)
    assert [(line.level, line.message, line.labels) for line in execution.lines] == [
        (LogLevel.INFO, "one", {}),
        (LogLevel.WARN, "2", {"step": "3", "message": "a label may have any name"}),
        (LogLevel.ERROR, "three", {}),
    ]
    assert [line.at - 1_800_000_000_000_000 for line in execution.lines] == [0, 1, 2]


def test_the_name_of_a_stage_is_short_and_can_be_stored(execution: FakeExecution) -> None:
    during(execution, current_job.report_progress, 1, "x" * 10 * MAX_LABEL_LENGTH)
    during(execution, current_job.report_progress, 0.5, "\udce9")
    during(execution, current_job.report_progress, 0)
    assert [report.fraction for report in execution.reports] == [1.0, 0.5, 0.0]
    assert len(execution.reports[0].stage or "") < MAX_LABEL_LENGTH + 50
    assert [report.stage for report in execution.reports[1:]] == ["\\udce9", None]


def test_identity(execution: FakeExecution) -> None:
    assert during(execution, lambda: (bool(current_job), current_job.id, current_job.attempt, current_job.route)) == (
        True,
        "the-id",
        2,
        "/items/{id}",
    )


@pytest.mark.parametrize("wrong", [-0.01, 1.01, float("nan"), 40])
def test_a_fraction_out_of_range_is_always_refused(execution: FakeExecution, wrong: float) -> None:
    with pytest.raises(ValueError, match="it must be from 0 to 1"):
        current_job.report_progress(wrong)
    with pytest.raises(ValueError, match="it must be from 0 to 1"):
        during(execution, current_job.report_progress, wrong)
    assert execution.reports == []


def test_an_invalid_level_is_always_refused(execution: FakeExecution) -> None:
    with pytest.raises(ValueError, match="level is 'LOUD'"):
        current_job.log("x", level="LOUD")
    with pytest.raises(ValueError, match="level is 'LOUD'"):
        during(execution, current_job.log, "x", level="LOUD")


def test_calls_outside_a_replay_and_after_its_end_are_ignored() -> None:
    current_job.log("x")
    current_job.report_progress(0.5)
    late = FakeExecution(over=True)
    during(late, current_job.log, "x")
    during(late, current_job.report_progress, 0.5)
    assert late.lines == late.reports == []


def test_a_context_can_outlive_the_attempt() -> None:
    def run() -> None:
        activate(ActiveJob("the-id", 2, "/items/{id}", object(), lambda: None))
        assert (bool(current_job), current_job.id, current_job.attempt) == (True, "the-id", 2)
        current_job.log("x")
        current_job.report_progress(0.5)
        with pytest.raises(RuntimeError, match="the request already has its response"):
            _ = current_job.callback_url

    contextvars.Context().run(run)
