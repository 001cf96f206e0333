"""`current_job`: what a handler can read and report about the request it is working on."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Protocol

from queue_middleware.jobs.log_lines import MAX_LABEL_LENGTH, LogLine, make_line, read_level, to_text
from queue_middleware.jobs.models import Progress


class JobLog(Protocol):
    """Takes the log lines and progress reports of an attempt; from any thread."""

    def now(self) -> int:
        """The time for a line that is made now, in microseconds since 1970."""

    def report(self, progress: Progress) -> None:
        """Take a progress report."""

    def write(self, line: LogLine) -> None:
        """Take a log line."""


class Execution(Protocol):
    """The running attempt; its methods may be called from any thread."""

    def log_buffer(self) -> JobLog | None:
        """Where the attempt writes its log lines; None if it is over, and in a process that was forked."""

    def callback_url(self) -> str:
        """The callback URL of the job, which from now on is not completed by the handler's response.

        Raises `RuntimeError` if the attempt is over, and in a process that was forked from the one that runs it.
        """


class ActiveJob:
    """What a context knows about the attempt it belongs to.

    `execution` is a weak reference, because contexts outlive an attempt: tasks and threads of the application keep copies.
    """

    __slots__ = ("__weakref__", "_execution", "attempt", "queue", "request_id", "route")

    def __init__(
        self, request_id: str, attempt: int, route: str, queue: object, execution: Callable[[], Execution | None]
    ) -> None:
        self.request_id = request_id
        self.attempt = attempt
        self.route = route
        self.queue = queue
        """The store of the job; two queues in one process must not mix their jobs."""
        self._execution = execution

    def log_buffer(self) -> JobLog | None:
        """Where the attempt writes its log lines; None if it is over."""
        execution = self._execution()
        return None if execution is None else execution.log_buffer()

    def callback_url(self) -> str:
        """The callback URL of the job. Raises `RuntimeError` if the attempt is over."""
        execution = self._execution()
        if execution is None:
            raise RuntimeError(TOO_LATE)
        return execution.callback_url()


TOO_LATE = "the request already has its response; read callback_url before sending it"

_active_job: ContextVar[ActiveJob | None] = ContextVar("queue_middleware_active_job", default=None)


def activate(job: ActiveJob) -> Token[ActiveJob | None]:
    """Make the running context, and all copies of it, belong to an attempt."""
    return _active_job.set(job)


def active_job() -> ActiveJob | None:
    """The attempt that the running context belongs to."""
    return _active_job.get()


def _log_buffer() -> JobLog | None:
    job = _active_job.get()
    return None if job is None else job.log_buffer()


class CurrentJob:
    """The request being replayed in the running context, from coroutines and from threads alike.

    Outside a replay it is false and equal to None, its attributes are None and its methods do nothing: a handler that is also
    called directly needs no second version.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return _active_job.get() is not None

    def __eq__(self, other: object) -> bool:
        return other is self or (other is None and not self)

    @property
    def id(self) -> str | None:
        """The request id."""
        job = _active_job.get()
        return None if job is None else job.request_id

    @property
    def attempt(self) -> int | None:
        """The number of the attempt, from 1."""
        job = _active_job.get()
        return None if job is None else job.attempt

    @property
    def route(self) -> str | None:
        """The route of the request: a template such as `/items/{id}`, or `other`."""
        job = _active_job.get()
        return None if job is None else job.route

    @property
    def callback_url(self) -> str | None:
        """A secret URL for an external service that finishes the work; the same each time it is read.

        Once it was read, a 2xx response of the handler, preferably a 202, does not complete the request. The request waits at
        most `callback_timeout` seconds for JSON to be posted to this URL; that JSON becomes its response. Raises `RuntimeError`
        if the handler has already responded, and in a process that was forked from the one that handles the request.
        """
        job = _active_job.get()
        return None if job is None else job.callback_url()

    def report_progress(self, fraction: float, stage: str | None = None) -> None:
        """Report how far the work is: `fraction` from 0 to 1, and the name of the current stage. Returns at once.

        The request's status and its log lines show the last report. Of several reports in quick succession, only the last is
        stored. Raises `ValueError` for a fraction outside 0 to 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction!r}; it must be from 0 to 1")
        if buffer := _log_buffer():
            buffer.report(Progress(float(fraction), None if stage is None else to_text(stage, MAX_LABEL_LENGTH)))

    def log(self, message: object, /, level: str | int = "INFO", **labels: object) -> None:
        """Add a line to the request's log, which its submitter may read with `?logs=1`. Returns at once.

        `level` is one of fal's levels (STDERR, STDOUT, ERROR, INFO, WARN, DEBUG), or one of `logging`, by name or by number.
        `labels` are converted to strings, 16 at most. Raises `ValueError` for any other level.
        """
        log_level = read_level(level)
        if buffer := _log_buffer():
            buffer.write(make_line(buffer.now(), log_level, message, labels))


current_job = CurrentJob()
"""The only instance; its values depend on the context in which they are read."""
