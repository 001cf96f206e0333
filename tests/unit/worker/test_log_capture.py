from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import logging
import logging.config
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from queue_middleware.jobs.log_lines import MAX_MESSAGE_LENGTH, LogLevel
from queue_middleware.worker import log_capture
from queue_middleware.worker.job_context import activate
from queue_middleware.worker.log_capture import LogCapture, line_of
from tests.support.execution import FakeExecution
from tests.support.queue_client import eventually

log = logging.getLogger("tests.capture.app")


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """The level INFO, independent of the rest of the session."""
    log.setLevel(logging.INFO)
    yield
    log.setLevel(logging.NOTSET)


@pytest.fixture
def execution() -> FakeExecution:
    return FakeExecution()


@pytest.fixture
async def capturing(execution: FakeExecution) -> AsyncIterator[LogCapture]:
    with LogCapture(execution, asyncio.get_running_loop()) as running:
        yield running


def during(execution: FakeExecution, call: object, *arguments: object, **options: object) -> None:
    def run() -> None:
        activate(execution.job)
        call(*arguments, **options)  # type: ignore[operator]

    contextvars.Context().run(run)


def messages(execution: FakeExecution) -> list[str]:
    return [line.message for line in execution.lines]


def handlers(logger: logging.Logger) -> int:
    return sum(isinstance(handler, log_capture.CaptureHandler) for handler in logger.handlers)


# --- which records are captured


async def test_a_record_of_a_replay_becomes_a_line(capturing: LogCapture, execution: FakeExecution) -> None:
    during(execution, log.info, "%d of %s", 3, "them")
    (line,) = execution.lines
    assert (line.level, line.message, line.labels) == (LogLevel.INFO, "3 of them", {"logger": "tests.capture.app"})


async def test_records_below_the_level_of_the_logger_are_not_captured(capturing: LogCapture, execution: FakeExecution) -> None:
    during(execution, log.debug, "too fine")
    assert execution.lines == []


async def test_nothing_outside_a_replay_is_captured(capturing: LogCapture, execution: FakeExecution) -> None:
    log.info("direct")
    assert execution.lines == []


async def test_nothing_of_another_queue_is_captured(capturing: LogCapture, execution: FakeExecution) -> None:
    other = FakeExecution()
    with LogCapture(other, asyncio.get_running_loop()):
        during(execution, log.info, "mine")
        during(other, log.info, "its")
    during(other, log.info, "its queue has stopped")
    assert (messages(execution), messages(other)) == (["mine"], ["its"])


@pytest.mark.parametrize(
    ("name", "captured"), [("queue_middleware", 0), ("queue_middleware.x", 0), ("queue_middleware_user", 1)]
)
async def test_records_of_the_queue_itself_are_not_captured(
    capturing: LogCapture, execution: FakeExecution, name: str, captured: int
) -> None:
    during(execution, logging.getLogger(name).error, "x")
    assert len(execution.lines) == captured


async def test_a_record_is_captured_once_for_several_handlers(capturing: LogCapture, execution: FakeExecution) -> None:
    child, streams = log.getChild("child"), [logging.StreamHandler(io.StringIO()) for _ in range(3)]
    for logger, stream in zip((child, log, logging.root), streams, strict=True):
        logger.addHandler(stream)
    try:
        during(execution, child.warning, "once")
    finally:
        for logger, stream in zip((child, log, logging.root), streams, strict=True):
            logger.removeHandler(stream)
    assert messages(execution) == ["once"]


async def test_after_the_end_no_handler_is_installed(execution: FakeExecution) -> None:
    with LogCapture(execution, asyncio.get_running_loop()):
        assert handlers(logging.root) == 1
    assert handlers(logging.root) == 0
    during(execution, log.warning, "too late")
    assert execution.lines == []


# --- loggers that do not propagate, and loggers that change


@pytest.fixture
def isolated_logger() -> Iterator[logging.Logger]:
    """Like the loggers of uvicorn and gunicorn: a handler of its own, no propagation."""
    logger = logging.getLogger("tests.capture.isolated_logger")
    handler = logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)
    logger.propagate = False
    yield logger
    logger.propagate = True
    logger.removeHandler(handler)


async def test_a_logger_that_does_not_propagate_is_captured(isolated_logger: logging.Logger, execution: FakeExecution) -> None:
    with LogCapture(execution, asyncio.get_running_loop()):
        during(execution, isolated_logger.warning, "here")
        during(execution, isolated_logger.getChild("child").warning, "and below")
        isolated_logger.propagate = True
        during(execution, isolated_logger.warning, "once, although both handlers are installed now")
    assert messages(execution) == ["here", "and below", "once, although both handlers are installed now"]
    assert handlers(isolated_logger) == 0


async def test_a_silenced_logger_stays_silent(execution: FakeExecution) -> None:
    silent = logging.getLogger("tests.capture.silent")
    null = logging.NullHandler()
    silent.addHandler(null)
    silent.propagate = False
    try:
        with LogCapture(execution, asyncio.get_running_loop()):
            during(execution, silent.error, "shh")
    finally:
        silent.propagate = True
        silent.removeHandler(null)
    assert execution.lines == []


async def test_loggers_that_are_configured_later_are_found(
    isolated_logger: logging.Logger, execution: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_capture, "_UPDATE_INTERVAL", 0.001)
    isolated_logger.propagate = True
    with LogCapture(execution, asyncio.get_running_loop()):
        isolated_logger.propagate = False
        await eventually(lambda: handlers(isolated_logger) == 1)
        during(execution, isolated_logger.warning, "found")
        isolated_logger.propagate = True
        await eventually(lambda: handlers(isolated_logger) == 0)
        during(execution, isolated_logger.warning, "and found again")
    assert messages(execution) == ["found", "and found again"]


async def test_capturing_continues_after_all_handlers_were_removed(
    execution: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_capture, "_UPDATE_INTERVAL", 0.001)
    with LogCapture(execution, asyncio.get_running_loop()):
        before = list(logging.root.handlers)
        try:
            logging.root.handlers.clear()  # as `dictConfig` and `basicConfig(force=True)` do
            await eventually(lambda: handlers(logging.root) == 1)
            during(execution, log.warning, "still here")
        finally:
            logging.root.handlers[:] = before
    assert messages(execution) == ["still here"]


# --- Python's behavior without logging configuration


@contextlib.contextmanager
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The root logger without the test runner's handlers, and a stderr to inspect."""
    before = list(logging.root.handlers)
    logging.root.handlers.clear()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", io.StringIO())
        yield sys.stderr  # type: ignore[misc]
    logging.root.handlers[:] = before


async def test_warnings_still_reach_stderr_once(execution: FakeExecution, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    with unconfigured(monkeypatch) as stderr, LogCapture(execution, loop), LogCapture(FakeExecution(), loop):
        log.info("not this")
        log.warning("this")
        during(execution, log.warning, "and this")
        logging.getLogger("queue_middleware").warning("and ours")
        assert stderr.getvalue() == "this\nand this\nand ours\n"
    assert messages(execution) == ["and this"]


async def test_a_handler_below_the_root_is_enough(execution: FakeExecution, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = logging.StreamHandler(io.StringIO())
    with unconfigured(monkeypatch) as stderr, LogCapture(execution, asyncio.get_running_loop()):
        log.addHandler(handler)
        log.getChild("child").warning("written there")
        log.removeHandler(handler)
        assert stderr.getvalue() == ""


async def test_a_disabled_last_resort_handler_stays_disabled(execution: FakeExecution, monkeypatch: pytest.MonkeyPatch) -> None:
    with unconfigured(monkeypatch) as stderr, LogCapture(execution, asyncio.get_running_loop()):
        monkeypatch.setattr(logging, "lastResort", None)
        log.warning("nowhere")
        assert stderr.getvalue() == ""


async def test_records_after_a_finished_replay_are_not_formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    over = FakeExecution(over=True)
    spelled: list[logging.LogRecord] = []
    monkeypatch.setattr(log_capture, "line_of", spelled.append)
    with LogCapture(over, asyncio.get_running_loop()):
        during(over, log.info, "too late")
    assert spelled == over.lines == []


# --- malformed records


class Hostile:
    """Every method raises."""

    def __str__(self) -> str:
        raise LookupError("str")

    def __repr__(self) -> str:
        raise LookupError("repr")


def record(message: object, *arguments: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("app", logging.ERROR, __file__, 1, message, arguments, None)
    made.__dict__.update(more)
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (record("%d items", "many"), "%d items (its arguments do not fit: ('many',))"),
        (record("%s"), "%s"),
        (record("no place", 1), "no place (its arguments do not fit: (1,))"),
        (record(Hostile()), "[Hostile has no text: LookupError] (its arguments do not fit: ())"),
        (record("%s", Hostile()), "%s (its arguments do not fit: they cannot be shown either: LookupError)"),
        (record({"a": 1}), "{'a': 1}"),
        (record("x", stack_info="Stack (most recent call last):\n  here"), "x\nStack (most recent call last):\n  here"),
        (record("x", exc_text="spelled already"), "x\nspelled already"),
        (record("x", exc_info=(None, None, None)), "x"),
        (record("x", exc_info="nonsense"), "x\n[its traceback cannot be shown: TypeError]"),
    ],
)
def test_every_record_has_a_text(made: logging.LogRecord, message: str) -> None:
    assert line_of(made, 0).message == message


def test_labels_of_a_record() -> None:
    assert line_of(record("x", labels={"step": 3}), 0).labels == {"logger": "app", "step": "3"}
    assert line_of(record("x", labels="none"), 0).labels == {"logger": "app"}


async def test_bad_arguments_do_not_reach_the_handler(
    capturing: LogCapture, execution: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # other logging handlers report errors to stderr as usual
    during(execution, log.info, "%d", Hostile())
    assert len(execution.lines) == 1


async def test_an_error_of_the_log_buffer_does_not_reach_the_handler(capturing: LogCapture) -> None:
    class Broken(FakeExecution):
        def write(self, line: object) -> None:
            raise RuntimeError

    broken = Broken()
    with LogCapture(broken, asyncio.get_running_loop()):
        during(broken, log.info, "x")


def dive(depth: int) -> None:
    if depth:
        dive(depth - 1)
    raise ValueError("at the bottom")


async def test_a_traceback_is_part_of_the_message(capturing: LogCapture, execution: FakeExecution) -> None:
    def handler() -> None:
        try:
            try:
                dive(0)
            except ValueError as error:
                raise LookupError("above") from error
        except LookupError:
            log.exception("it failed")

    during(execution, handler)
    (line,) = execution.lines
    assert line.level is LogLevel.ERROR
    assert line.message.startswith("it failed\nTraceback (most recent call last):\n")
    assert "ValueError: at the bottom" in line.message
    assert line.message.endswith("LookupError: above")


async def test_a_long_traceback_keeps_its_end(capturing: LogCapture, execution: FakeExecution) -> None:
    def handler() -> None:
        try:
            dive(500)
        except ValueError:
            log.exception("deep")
        try:
            raise ValueError("x" * 10 * MAX_MESSAGE_LENGTH)
        except ValueError:
            log.exception("long")

    during(execution, handler)
    deep, long = messages(execution)
    assert deep.startswith("deep\n")
    assert deep.endswith("ValueError: at the bottom")
    assert long.endswith("xxx")
    assert max(len(deep), len(long)) < MAX_MESSAGE_LENGTH + 50
