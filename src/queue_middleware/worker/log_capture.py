"""Turns `logging` records that are made during a replay into log lines of its request, without code in the application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Mapping
from typing import Self

from queue_middleware.jobs.log_lines import LogLine, level_for_number, make_line, to_text

from .job_context import active_job

_OURS = "queue_middleware"
_UPDATE_INTERVAL = 1.0
"""Seconds between two searches for loggers that were configured meanwhile."""
_FRAMES = 50
"""Innermost frames that are kept of each traceback."""


class LogCapture:
    """Captures records between `__enter__` and `__exit__`, for the jobs of one queue.

    A record propagates from its logger to the root, or to the first logger that does not propagate. Handlers are added to these
    loggers only, so that each record is captured once.
    """

    def __init__(self, queue: object, loop: asyncio.AbstractEventLoop) -> None:
        self._queue = queue
        self._loop = loop
        self._handlers: dict[logging.Logger, CaptureHandler] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._update()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for logger, handler in self._handlers.items():
            logger.removeHandler(handler)
        self._handlers.clear()

    def _update(self) -> None:
        """Add handlers where records end now: loggers are created later, and `dictConfig` removes all handlers."""
        ends = _ends()
        for logger in self._handlers.keys() - ends:
            logger.removeHandler(self._handlers.pop(logger))
        for logger in ends:
            handler = self._handlers.setdefault(logger, CaptureHandler(logger, self._queue))
            if handler not in logger.handlers:
                logger.addHandler(handler)
        self._timer = self._loop.call_later(_UPDATE_INTERVAL, self._update)


def _ends() -> set[logging.Logger]:
    """The root, and every logger that does not propagate and has a handler; without one it was silenced on purpose."""
    loggers = [logger for logger in list(logging.root.manager.loggerDict.values()) if isinstance(logger, logging.Logger)]
    return {logging.root, *[logger for logger in loggers if not logger.propagate and _has_handler(logger)]}


def _has_handler(logger: logging.Logger) -> bool:
    return any(not isinstance(handler, CaptureHandler | logging.NullHandler) for handler in logger.handlers)


class CaptureHandler(logging.Handler):
    """The handler of one logger at which records end."""

    def __init__(self, logger: logging.Logger, queue: object) -> None:
        super().__init__()
        self._logger = logger
        self._queue = queue

    def createLock(self) -> None:  # noqa: N802 - the name is that of `logging`
        """No lock, because a log buffer takes lines from several threads at once."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record. Nothing is raised into the code that logs."""
        is_root = self._logger is logging.root
        if self._logger.propagate and not is_root:
            return True  # it propagates again since the last update, so the next handler captures the record
        job = active_job()
        if job is not None and job.queue is self._queue and not _is_ours(record.name):
            with contextlib.suppress(Exception):
                if (buffer := job.log_buffer()) is not None:
                    buffer.write(line_of(record, buffer.now()))
        if is_root:
            self._emulate_last_resort(record)
        return True

    def _emulate_last_resort(self, record: logging.LogRecord) -> None:
        """Write warnings to stderr where logging is not configured, as Python does as long as there is no handler."""
        last = logging.lastResort
        if last is None or record.levelno < last.level:
            return
        handlers = [handler for handler in logging.root.handlers if isinstance(handler, CaptureHandler)]
        if len(handlers) == len(logging.root.handlers) and handlers[:1] == [self] and not _is_handled(record.name):
            last.handle(record)


def _is_handled(name: str) -> bool:
    """Whether a logger on the way to the root has a handler."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None and logger is not logging.root:
        if logger.handlers:
            return True
        logger = logger.parent
    return False


def _is_ours(name: str) -> bool:
    return name.startswith(_OURS) and (len(name) == len(_OURS) or name[len(_OURS)] == ".")


def line_of(record: logging.LogRecord, at: int) -> LogLine:
    """A record as a line, with its traceback; `extra={"labels": {…}}` adds labels. Never raises.

    `at` is in microseconds since 1970.
    """
    labels: dict[str, object] = {"logger": record.name}
    more = getattr(record, "labels", None)
    if isinstance(more, Mapping):
        labels.update(more)
    return make_line(at, level_for_number(record.levelno), _text(record), labels)


def _text(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:
        message = f"{to_text(record.msg, 1000)} (its arguments do not fit: {_shown(record.args)})"
    return "\n".join([message, *_traceback(record)])


def _shown(value: object) -> str:
    try:
        return to_text(repr(value), 1000)
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
