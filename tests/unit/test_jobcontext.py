from __future__ import annotations

import contextvars

import pytest

from queue_middleware import current_job
from queue_middleware.jobcontext import enter, replaying
from queue_middleware.logline import LABEL, LogLevel, LogLine
from queue_middleware.models import Claim, Progress, RetryPolicy
from tests.nouns import a_request


class Scribe:
    """An attempt and its book in one, which remembers what it is told."""

    claim = Claim(1, "the-id", 7, 2, RetryPolicy(3), a_request(), None)

    def __init__(self, *, over: bool = False) -> None:
        self.queue = self
        self.over = over
        self.lines: list[LogLine] = []
        self.reports: list[Progress] = []

    def logbook(self) -> Scribe | None:
        return None if self.over else self

    def write(self, line: LogLine) -> None:
        self.lines.append(line)

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)


@pytest.fixture
def scribe() -> Scribe:
    return Scribe()


def during(scribe: Scribe, call: object, *arguments: object, **options: object) -> object:
    def run() -> object:
        enter(scribe)
        assert replaying() is scribe
        return call(*arguments, **options)  # type: ignore[operator]

    return contextvars.Context().run(run)


def test_a_line_has_a_level_and_labels(scribe: Scribe) -> None:
    during(scribe, current_job.log, "one")
    during(scribe, current_job.log, 2, level="warning", step=3, message="a label may have any name")
    during(scribe, current_job.log, "three", 40)
    assert [(line.level, line.message, line.labels) for line in scribe.lines] == [
        (LogLevel.INFO, "one", {}),
        (LogLevel.WARN, "2", {"step": "3", "message": "a label may have any name"}),
        (LogLevel.ERROR, "three", {}),
    ]
    assert [line.at for line in scribe.lines] == sorted(line.at for line in scribe.lines)


def test_the_name_of_a_stage_is_short_and_can_be_stored(scribe: Scribe) -> None:
    during(scribe, current_job.report_progress, 1, "x" * 10 * LABEL)
    during(scribe, current_job.report_progress, 0.5, "\udce9")
    during(scribe, current_job.report_progress, 0)
    assert [report.fraction for report in scribe.reports] == [1.0, 0.5, 0.0]
    assert len(scribe.reports[0].stage or "") < LABEL + 50
    assert [report.stage for report in scribe.reports[1:]] == ["\\udce9", None]


def test_identity(scribe: Scribe) -> None:
    assert during(scribe, lambda: (bool(current_job), current_job.id, current_job.attempt)) == (True, "the-id", 2)


@pytest.mark.parametrize("wrong", [-0.01, 1.01, float("nan"), 40])
def test_a_fraction_outside_is_refused_everywhere(scribe: Scribe, wrong: float) -> None:
    with pytest.raises(ValueError, match="it goes from 0 to 1"):
        current_job.report_progress(wrong)
    with pytest.raises(ValueError, match="it goes from 0 to 1"):
        during(scribe, current_job.report_progress, wrong)
    assert scribe.reports == []


def test_a_wrong_level_is_refused_everywhere(scribe: Scribe) -> None:
    with pytest.raises(ValueError, match="level is 'LOUD'"):
        current_job.log("x", level="LOUD")
    with pytest.raises(ValueError, match="level is 'LOUD'"):
        during(scribe, current_job.log, "x", level="LOUD")


def test_outside_of_a_replay_and_after_its_end_nothing_happens() -> None:
    current_job.log("x")
    current_job.report_progress(0.5)
    late = Scribe(over=True)
    during(late, current_job.log, "x")
    during(late, current_job.report_progress, 0.5)
    assert late.lines == late.reports == []
