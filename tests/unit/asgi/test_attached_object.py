"""The wrapped object offers the attributes of the framework's object, except those of Python's own protocols."""

from __future__ import annotations

import copy
import inspect
from typing import Any
from unittest import mock

import pytest
from fastapi import FastAPI
from quart import Quart
from starlette.applications import Starlette

from queue_middleware import QueueMiddleware
from queue_middleware.errors import SettingsError
from tests.support.raw_asgi import call, http_scope


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """An application that is a function."""


def test_attributes_are_read_from_the_application() -> None:
    app = FastAPI(title="Pictures")
    app.state.model = "large"
    queue = QueueMiddleware(app)
    assert queue.app is app
    assert (queue.title, queue.state.model, queue.openapi) == ("Pictures", "large", app.openapi)
    assert queue.dependency_overrides is app.dependency_overrides
    assert queue.settings.concurrency == 8


def test_routes_can_be_added_after_the_wrapping() -> None:
    queue = QueueMiddleware(FastAPI())

    @queue.get("/late")
    async def late() -> str:
        return "late"

    assert "/late" in queue.openapi()["paths"]


def test_assignments_set_attributes_of_the_application() -> None:
    """FastAPI's documentation resets overrides by an assignment; an assignment to the wrapper would have no effect."""
    app = FastAPI()
    queue = QueueMiddleware(app)
    overrides: dict[Any, Any] = {}
    queue.dependency_overrides = overrides
    assert app.dependency_overrides is overrides
    queue.model = "large"  # a name that neither object had
    assert app.model == queue.model == "large"  # type: ignore[attr-defined]
    del queue.model
    assert not hasattr(app, "model")


def test_a_monkeypatch_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI(title="Pictures")
    queue = QueueMiddleware(app)
    with mock.patch.object(queue, "title", "patched"):
        assert app.title == "patched"
    assert (app.title, "title" in vars(queue)) == ("Pictures", False)
    with monkeypatch.context() as patches:
        patches.setattr(queue, "title", "patched")
        assert app.title == "patched"
    assert (app.title, "title" in vars(queue)) == ("Pictures", False)


def test_the_middlewares_own_attributes_are_not_forwarded() -> None:
    app = FastAPI()
    app.settings = "the application's"  # type: ignore[attr-defined]
    queue = QueueMiddleware(app, concurrency=2)
    assert queue.settings.concurrency == 2
    assert app.settings == "the application's"  # type: ignore[attr-defined]
    with mock.patch.object(queue, "counts", "patched"):
        assert not hasattr(app, "counts")


def test_an_unknown_attribute_names_both_classes() -> None:
    queue = QueueMiddleware(FastAPI())
    with pytest.raises(AttributeError, match="'QueueMiddleware' has no attribute 'nothing', nor has the 'FastAPI' in it"):
        _ = queue.nothing
    assert getattr(queue, "nothing", None) is None


def test_special_attributes_are_never_forwarded() -> None:
    class Odd(FastAPI):
        __wrapped__ = plain
        __custom__ = "odd"

    queue = QueueMiddleware(Odd())
    assert not hasattr(queue, "__wrapped__")
    assert not hasattr(queue, "__custom__")
    assert not isinstance(queue, FastAPI)
    assert not inspect.isclass(queue)
    assert not inspect.iscoroutinefunction(queue)
    assert inspect.iscoroutinefunction(queue.__call__)  # servers recognize ASGI 3 by it
    assert list(inspect.signature(queue).parameters) == ["scope", "receive", "send"]


def test_copies_and_uninitialized_objects_do_not_recurse() -> None:
    queue = QueueMiddleware(FastAPI())
    assert copy.copy(queue).app is queue.app
    half_made = QueueMiddleware.__new__(QueueMiddleware)
    with pytest.raises(AttributeError, match="'QueueMiddleware' has no attribute 'app'"):
        _ = half_made.app
    assert not hasattr(half_made, "title")


def test_a_subclass_can_set_its_own_attributes() -> None:
    class Mine(QueueMiddleware[FastAPI]):
        def __init__(self, app: FastAPI) -> None:
            self.own = "mine"
            super().__init__(app)

    app = FastAPI()
    queue = Mine(app)
    queue.own = "still mine"
    assert queue.own == "still mine"
    assert not hasattr(app, "own")


def test_the_class_is_generic_in_the_type_of_its_application() -> None:
    assert QueueMiddleware[FastAPI](FastAPI(title="Pictures")).title == "Pictures"


# --- attach


def attached_twice() -> Any:
    app = FastAPI()
    QueueMiddleware.attach(app)
    return app


def already_started() -> Any:
    app = Starlette()
    app.middleware_stack = app.build_middleware_stack()
    return app


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (plain, r"cannot put a queue into plain\(\); .* write 'app = QueueMiddleware\(app\)'"),
        (mock.Mock(spec=["__call__"]), "an object of the class Mock"),
        (QueueMiddleware(plain), "an object of the class QueueMiddleware"),
        (FastAPI, "was given a class"),
        (attached_twice(), "an application that already has a queue"),
        (already_started(), "called too late"),
    ],
)
def test_objects_that_cannot_have_a_queue_are_refused(app: Any, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        QueueMiddleware.attach(app)


def test_an_invalid_option_leaves_the_application_unchanged() -> None:
    app = FastAPI()
    with pytest.raises(SettingsError):
        QueueMiddleware.attach(app, concurrency=0)
    assert "build_middleware_stack" not in vars(app)
    QueueMiddleware.attach(app)


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
async def test_attaching_keeps_the_object_and_adds_the_queue(kind: type[Any]) -> None:
    app = kind()
    queue = QueueMiddleware.attach(app)
    assert type(app) is kind
    assert queue.app is app
    response = await call(app, http_scope("POST", b"/fal/queue/submit/x"))
    assert response.status == 503
    assert b"not running" in response.body
    assert (await call(app, http_scope("GET", b"/elsewhere"))).status == 404


async def test_quart_is_attached_by_its_asgi_app() -> None:
    app = Quart(__name__)
    queue = QueueMiddleware.attach(app)
    assert queue.app is app
    assert (await call(app, http_scope("POST", b"/fal/queue/submit/x"))).status == 503
