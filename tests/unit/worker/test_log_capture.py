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
from tests.support.queue_client import eventually
from tests.unit.worker.test_job_context import FakeExecution

log = logging.getLogger("tests.capture.app")


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """INFO here, whatever the rest of the session does."""
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


def said(execution: FakeExecution) -> list[str]:
    return [line.message for line in execution.lines]


def ears(logger: logging.Logger) -> int:
    return sum(isinstance(handler, log_capture.CaptureHandler) for handler in logger.handlers)


# --- what is heard


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
    stranger = FakeExecution()
    with LogCapture(stranger, asyncio.get_running_loop()):
        during(execution, log.info, "mine")
        during(stranger, log.info, "his")
    during(stranger, log.info, "his queue has stopped")
    assert (said(execution), said(stranger)) == (["mine"], ["his"])


@pytest.mark.parametrize(("name", "heard"), [("queue_middleware", 0), ("queue_middleware.x", 0), ("queue_middleware_user", 1)])
async def test_records_of_the_queue_itself_are_not_captured(
    capturing: LogCapture, execution: FakeExecution, name: str, heard: int
) -> None:
    during(execution, logging.getLogger(name).error, "x")
    assert len(execution.lines) == heard


async def test_a_record_is_captured_once_for_several_handlers(capturing: LogCapture, execution: FakeExecution) -> None:
    child, streams = log.getChild("child"), [logging.StreamHandler(io.StringIO()) for _ in range(3)]
    for logger, stream in zip((child, log, logging.root), streams, strict=True):
        logger.addHandler(stream)
    try:
        during(execution, child.warning, "once")
    finally:
        for logger, stream in zip((child, log, logging.root), streams, strict=True):
            logger.removeHandler(stream)
    assert said(execution) == ["once"]


async def test_after_the_end_nobody_listens(execution: FakeExecution) -> None:
    with LogCapture(execution, asyncio.get_running_loop()):
        assert ears(logging.root) == 1
    assert ears(logging.root) == 0
    during(execution, log.warning, "too late")
    assert execution.lines == []


# --- loggers that keep their records to themselves, and loggers that change


@pytest.fixture
def hermit() -> Iterator[logging.Logger]:
    """As those of uvicorn and gunicorn: a handler of its own, and nothing for the root."""
    logger = logging.getLogger("tests.capture.hermit")
    handler = logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)
    logger.propagate = False
    yield logger
    logger.propagate = True
    logger.removeHandler(handler)


async def test_a_logger_that_does_not_propagate_is_captured(hermit: logging.Logger, execution: FakeExecution) -> None:
    with LogCapture(execution, asyncio.get_running_loop()):
        during(execution, hermit.warning, "here")
        during(execution, hermit.getChild("child").warning, "and below")
        hermit.propagate = True
        during(execution, hermit.warning, "once, although both ends hear it now")
    assert said(execution) == ["here", "and below", "once, although both ends hear it now"]
    assert ears(hermit) == 0


async def test_a_logger_that_was_made_silent_stays_silent(execution: FakeExecution) -> None:
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
    hermit: logging.Logger, execution: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_capture, "_UPDATE_INTERVAL", 0.001)
    hermit.propagate = True
    with LogCapture(execution, asyncio.get_running_loop()):
        hermit.propagate = False
        await eventually(lambda: ears(hermit) == 1)
        during(execution, hermit.warning, "found")
        hermit.propagate = True
        await eventually(lambda: ears(hermit) == 0)
        during(execution, hermit.warning, "and found again")
    assert said(execution) == ["found", "and found again"]


async def test_listening_goes_on_after_somebody_took_all_handlers_away(
    execution: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_capture, "_UPDATE_INTERVAL", 0.001)
    with LogCapture(execution, asyncio.get_running_loop()):
        before = list(logging.root.handlers)
        try:
            logging.root.handlers.clear()  # as `dictConfig` and `basicConfig(force=True)` do
            await eventually(lambda: ears(logging.root) == 1)
            during(execution, log.warning, "still here")
        finally:
            logging.root.handlers[:] = before
    assert said(execution) == ["still here"]


# --- what Python does where nobody has configured logging


@contextlib.contextmanager
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The root without the handlers of the test runner, and stderr to look at."""
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
    assert said(execution) == ["and this"]


async def test_a_handler_below_the_root_is_enough(execution: FakeExecution, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = logging.StreamHandler(io.StringIO())
    with unconfigured(monkeypatch) as stderr, LogCapture(execution, asyncio.get_running_loop()):
        log.addHandler(handler)
        log.getChild("child").warning("written there")
        log.removeHandler(handler)
        assert stderr.getvalue() == ""


async def test_who_wants_no_last_resort_gets_none(execution: FakeExecution, monkeypatch: pytest.MonkeyPatch) -> None:
    with unconfigured(monkeypatch) as stderr, LogCapture(execution, asyncio.get_running_loop()):
        monkeypatch.setattr(logging, "lastResort", None)
        log.warning("nowhere")
        assert stderr.getvalue() == ""


async def test_a_finished_replay_is_not_even_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    over = FakeExecution(over=True)
    spelled: list[logging.LogRecord] = []
    monkeypatch.setattr(log_capture, "line_of", spelled.append)
    with LogCapture(over, asyncio.get_running_loop()):
        during(over, log.info, "too late")
    assert spelled == over.lines == []


# --- records that are not as they should be


class Thorn:
    """Objects that raise from whatever is asked."""

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
        (record(Thorn()), "[Thorn has no text: LookupError] (its arguments do not fit: ())"),
        (record("%s", Thorn()), "%s (its arguments do not fit: they cannot be shown either: LookupError)"),
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
    monkeypatch.setattr(logging, "raiseExceptions", False)  # other handlers complain to stderr, as ever
    during(execution, log.info, "%d", Thorn())
    assert len(execution.lines) == 1


async def test_a_broken_book_does_not_reach_the_handler(capturing: LogCapture) -> None:
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


async def test_a_traceback_comes_with_its_record(capturing: LogCapture, execution: FakeExecution) -> None:
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


async def test_of_a_long_traceback_the_end_is_kept(capturing: LogCapture, execution: FakeExecution) -> None:
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
    deep, long = said(execution)
    assert deep.startswith("deep\n")
    assert deep.endswith("ValueError: at the bottom")
    assert long.endswith("xxx")
    assert max(len(deep), len(long)) < MAX_MESSAGE_LENGTH + 50
