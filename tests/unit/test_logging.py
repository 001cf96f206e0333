"""The request of the context in records of `logging` and entries of structlog."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from logging.config import DictConfigurator
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import Any

import pytest

from queue_middleware.logging import RequestFilter, add_request
from queue_middleware.worker.job_context import activate
from tests.support.execution import FakeExecution

INSIDE = {"queue_request_id": "the-id", "queue_attempt": 2, "queue_route": "/items/{id}"}


def during(call: Callable[..., Any], *arguments: Any) -> Any:
    def run() -> Any:
        activate(FakeExecution().job)
        return call(*arguments)

    return contextvars.Context().run(run)


def added(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name.startswith("queue_") and name != "queue_event"}


def filtered(filter_: RequestFilter, **extra: Any) -> dict[str, Any]:
    record = logging.makeLogRecord(extra)
    assert filter_.filter(record)
    return added(record)


def test_a_record_has_the_request_of_the_context() -> None:
    assert during(filtered, RequestFilter()) == INSIDE


@pytest.mark.parametrize("missing", ["", "-", None])
def test_outside_a_request_the_attributes_are_empty(missing: object) -> None:
    assert filtered(RequestFilter(missing)) == dict.fromkeys(INSIDE, missing)
    assert filtered(RequestFilter()) == dict.fromkeys(INSIDE, "")


def test_a_record_keeps_what_it_has() -> None:
    record = during(_made_with_filter)
    assert RequestFilter().filter(record)  # a second handler, in a thread without the context
    assert added(record) == INSIDE


def _made_with_filter() -> logging.LogRecord:
    record = logging.makeLogRecord({})
    RequestFilter().filter(record)
    return record


def test_a_record_of_the_queue_has_the_request_that_it_is_about() -> None:
    about = {"queue_event": "rescued", "request_id": "another", "state": "failed"}
    expected = {"queue_request_id": "another", "queue_attempt": "", "queue_route": ""}
    assert filtered(RequestFilter(), **about) == expected
    assert during(lambda: filtered(RequestFilter(), **about)) == expected
    assert filtered(RequestFilter(), **about, attempt=3, route="/") == {
        "queue_request_id": "another", "queue_attempt": 3, "queue_route": "/",
    }  # fmt: skip


def test_a_field_of_the_application_with_such_a_name_is_not_read() -> None:
    assert filtered(RequestFilter(), request_id="from the application") == dict.fromkeys(INSIDE, "")


def test_a_format_can_be_written_in_another_thread() -> None:
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(queue)
    handler.addFilter(RequestFilter())
    during(handler.handle, logging.makeLogRecord({"msg": "painting"}))
    formatter = logging.Formatter("%(queue_request_id)s #%(queue_attempt)s %(message)s")
    assert formatter.format(queue.get()) == "the-id #2 painting"


def test_a_processor_adds_the_request_and_keeps_what_an_entry_has() -> None:
    assert during(add_request, None, "info", {"event": "painting"}) == {"event": "painting", **INSIDE}
    assert during(add_request, None, "info", {"queue_route": "mine"})["queue_route"] == "mine"
    assert add_request(None, "info", {"event": "painting"}) == {"event": "painting"}


def test_the_filter_can_be_named_in_a_configuration() -> None:
    configurator = DictConfigurator({"version": 1})
    configured = configurator.configure_filter({"()": "queue_middleware.logging.RequestFilter", "missing": "-"})
    assert filtered(configured) == dict.fromkeys(INSIDE, "-")
