"""`current_job`: what a handler can know and say about the request it is working on."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Protocol

from .logline import LABEL, LogLine, clean, make_line, now, read_level
from .models import Claim, Progress


class Book(Protocol):
    """Where an attempt writes what it says. Called from any thread."""

    def report(self, progress: Progress) -> None:
        """Take a report."""

    def write(self, line: LogLine) -> None:
        """Take a line."""


class Replaying(Protocol):
    """The attempt that a context belongs to."""

    @property
    def claim(self) -> Claim:
        """What is being run."""

    @property
    def queue(self) -> object:
        """Whose job it is; two queues in one process never meet."""

    def logbook(self) -> Book | None:
        """Where it writes; None when it is over. Called from any thread."""

    def callback_url(self) -> str:
        """Where somebody outside may say how it ended; from now on that is waited for. Called from any thread."""


_replaying: ContextVar[Replaying | None] = ContextVar("queue_middleware_replaying", default=None)


def enter(replaying: Replaying) -> Token[Replaying | None]:
    """Make this context, and what is copied from it, belong to an attempt."""
    return _replaying.set(replaying)


def replaying() -> Replaying | None:
    """The attempt that the running context belongs to."""
    return _replaying.get()


def _book() -> Book | None:
    attempt = _replaying.get()
    return attempt.logbook() if attempt else None


class CurrentJob:
    """The request being replayed in the running context, from coroutines and from threads alike.

    Outside a replay it is false and equal to None, its attributes are None and its methods do nothing: a handler that is also
    called directly needs no second version.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return _replaying.get() is not None

    def __eq__(self, other: object) -> bool:
        return other is self or (other is None and not self)

    @property
    def id(self) -> str | None:
        """The request id."""
        replaying = _replaying.get()
        return replaying.claim.request_id if replaying else None

    @property
    def attempt(self) -> int | None:
        """1 for the first."""
        replaying = _replaying.get()
        return replaying.claim.attempt if replaying else None

    @property
    def callback_url(self) -> str | None:
        """A secret URL for somebody outside who goes on with the work; the same however often it is asked for.

        Asking is a promise: after a 2xx answer of the handler, best a 202, the request is not completed but waits until JSON is
        posted there, which becomes its answer, at most `callback_timeout` seconds. Raises `RuntimeError` when the handler has
        already answered, and in a process that was forked from the one that handles the request.
        """
        replaying = _replaying.get()
        return replaying.callback_url() if replaying else None

    def report_progress(self, fraction: float, stage: str | None = None) -> None:
        """Say how far the work is: `fraction` from 0 to 1, and a word for what is being done. Returns at once.

        The last report is stored and shown in the request's status and among its log lines; of reports in quick succession
        some are skipped. Raises `ValueError` for a fraction outside 0 to 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction!r}; it goes from 0 to 1")
        if book := _book():
            book.report(Progress(float(fraction), None if stage is None else clean(stage, LABEL)))

    def log(self, message: object, /, level: str | int = "INFO", **labels: object) -> None:
        """Add a line to the request's log, which its submitter may read with `?logs=1`. Returns at once.

        `level` is one of fal's words (STDERR, STDOUT, ERROR, INFO, WARN, DEBUG), or one of `logging`, as a word or as a number;
        `labels` become texts, 16 at most. Raises `ValueError` for another level.
        """
        word = read_level(level)
        if book := _book():
            book.write(make_line(now(), word, message, labels))


current_job = CurrentJob()
"""The one instance; what it says depends on the context it is asked in."""
