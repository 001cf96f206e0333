"""Records of `logging` that are made during a replay become log lines of its request, with no code in the application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Mapping
from typing import Self

from .jobcontext import active_job
from .logline import clean, level_of, make_line, now
from .models import LogLine

_OURS = "queue_middleware"
_LOOK = 1.0
"""Seconds between two looks for loggers that were configured meanwhile."""
_FRAMES = 50
"""Of each traceback, the innermost."""


class LogCapture:
    """Hears the loggers between `__enter__` and `__exit__`, for the jobs of one queue.

    A record travels up from its logger to the root, or to the first logger that does not propagate. We listen at these ends
    only, so we hear each record once, in whatever way it got there.
    """

    def __init__(self, queue: object, loop: asyncio.AbstractEventLoop) -> None:
        self._queue = queue
        self._loop = loop
        self._handlers: dict[logging.Logger, CaptureHandler] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for logger, ear in self._handlers.items():
            logger.removeHandler(ear)
        self._handlers.clear()

    def _look(self) -> None:
        """Listen where records end now: loggers come later, and `dictConfig` takes all handlers away."""
        ends = _ends()
        for logger in self._handlers.keys() - ends:
            logger.removeHandler(self._handlers.pop(logger))
        for logger in ends:
            ear = self._handlers.setdefault(logger, CaptureHandler(logger, self._queue))
            if ear not in logger.handlers:
                logger.addHandler(ear)
        self._timer = self._loop.call_later(_LOOK, self._look)


def _ends() -> set[logging.Logger]:
    """The root, and every logger that keeps its records to itself; but not those that somebody made silent."""
    loggers = [logger for logger in list(logging.root.manager.loggerDict.values()) if isinstance(logger, logging.Logger)]
    return {logging.root, *[logger for logger in loggers if not logger.propagate and _is_written(logger)]}


def _is_written(logger: logging.Logger) -> bool:
    return any(not isinstance(handler, CaptureHandler | logging.NullHandler) for handler in logger.handlers)


class CaptureHandler(logging.Handler):
    """The handler at one end."""

    def __init__(self, at: logging.Logger, queue: object) -> None:
        super().__init__()
        self._at = at
        self._queue = queue

    def createLock(self) -> None:  # noqa: N802 - the name is logging's
        """None: a line is taken by threads side by side."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record. Nothing is raised into the code that logs."""
        at_root = self._at is logging.root
        if self._at.propagate and not at_root:
            return True  # it does so again since we looked; the next ear hears it
        job = active_job()
        if job is not None and job.queue is self._queue and not _is_ours(record.name):
            with contextlib.suppress(Exception):
                if (buffer := job.log_buffer()) is not None:
                    buffer.write(line_of(record))
        if at_root:
            self._emulate_last_resort(record)
        return True

    def _emulate_last_resort(self, record: logging.LogRecord) -> None:
        """Where nobody has configured logging, Python writes warnings to stderr, unless there is a handler: we are none."""
        last = logging.lastResort
        if last is None or record.levelno < last.level:
            return
        handlers = [handler for handler in logging.root.handlers if isinstance(handler, CaptureHandler)]
        if len(handlers) == len(logging.root.handlers) and handlers[:1] == [self] and not _is_heard(record.name):
            last.handle(record)


def _is_heard(name: str) -> bool:
    """Whether a logger on the way to the root has a handler."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None and logger is not logging.root:
        if logger.handlers:
            return True
        logger = logger.parent
    return False


def _is_ours(name: str) -> bool:
    return name.startswith(_OURS) and (len(name) == len(_OURS) or name[len(_OURS)] == ".")


def line_of(record: logging.LogRecord) -> LogLine:
    """A record as a line, with its traceback; `extra={"labels": {…}}` adds labels. Never raises."""
    labels: dict[str, object] = {"logger": record.name}
    more = getattr(record, "labels", None)
    if isinstance(more, Mapping):
        labels.update(more)
    return make_line(now(), level_of(record.levelno), _text(record), labels)


def _text(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:
        message = f"{clean(record.msg, 1000)} (its arguments do not fit: {_shown(record.args)})"
    return "\n".join([message, *_traceback(record)])


def _shown(value: object) -> str:
    try:
        return clean(repr(value), 1000)
    except Exception as error:
        return f"they cannot be shown either: {type(error).__name__}"


def _traceback(record: logging.LogRecord) -> list[str]:
    parts = [record.stack_info] if record.stack_info else []
    try:
        if record.exc_info and record.exc_info[0] is not None:
            parts.insert(0, "".join(traceback.format_exception(*record.exc_info, limit=-_FRAMES)).rstrip())
        elif record.exc_text:
            parts.insert(0, record.exc_text)
    except Exception as error:
        parts.insert(0, f"[its traceback cannot be shown: {type(error).__name__}]")
    return parts
