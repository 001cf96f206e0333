"""The repr of values hides data of clients, providers and applications."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import queue_middleware
from queue_middleware.asgi.headers import read_headers
from queue_middleware.events import OperatorNotice, OperatorWarning
from queue_middleware.jobs import struct
from queue_middleware.jobs.log_lines import LogLevel, LogLine
from queue_middleware.jobs.models import StoredResponse
from queue_middleware.jobs.struct import Struct
from queue_middleware.tasks.polling.response import FetchResult, PollError, PollUrls
from queue_middleware.web.asyncqueue.routes import TaskOperation, TaskRoute
from queue_middleware.web.urls import SplitPath
from queue_middleware.webhooks.models import DeliveryAttempt

SECRET = "s3cret"


def all_structs(base: type[Struct] = Struct) -> Iterator[type[Struct]]:
    for kind in base.__subclasses__():
        yield kind
        yield from all_structs(kind)


def test_every_private_name_is_a_field_of_some_value() -> None:
    """If a private field is renamed, the list of private names has to change too."""
    for module in pkgutil.walk_packages(queue_middleware.__path__, "queue_middleware."):
        if not module.name.endswith(("__main__", "pytest_plugin")):
            importlib.import_module(module.name)
    assert {field for kind in all_structs() for field in kind.__struct_fields__} >= struct._PRIVATE
    for kind in all_structs():
        assert set(kind.__struct_fields__) >= kind.private, kind


@pytest.mark.parametrize(
    "value",
    [
        StoredResponse(200, ((b"x", SECRET.encode()),), SECRET.encode()),
        DeliveryAttempt(1, 0.1, 200, None, SECRET.encode()),
        PollUrls(f"https://a.example/?key={SECRET}", f"https://b.example/?key={SECRET}"),
        PollError("the status request returned 500", SECRET),
        LogLine(0, LogLevel.INFO, SECRET, {"customer": SECRET}),
        FetchResult(f"https://a.example/?key={SECRET}"),
        TaskRoute(TaskOperation.CALLBACK, SECRET),
        SplitPath("/fal/queue", f"/v1/callbacks/{SECRET}"),
        read_headers(((b"authorization", SECRET.encode()), (b"x-fal-store-io", SECRET.encode()))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_private_fields_are_hidden(value: Struct) -> None:
    assert SECRET not in repr(value)
    assert SECRET not in str(value)


def test_other_fields_are_shown() -> None:
    assert repr(StoredResponse(204, (), b"ab")) == "StoredResponse(status=204, headers=(), body=<2 bytes>, chunks=0)"


@pytest.mark.parametrize("kind", [OperatorNotice, OperatorWarning])
def test_what_the_queue_reports_to_its_operator_is_shown(kind: type[OperatorNotice | OperatorWarning]) -> None:
    assert "the disk is full" in repr(kind("the disk is full"))
