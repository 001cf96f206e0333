"""The name of an application is the same under every server, and different for another application."""

from __future__ import annotations

import sys
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route

from queue_middleware import QueueMiddleware
from queue_middleware.asgi.application import FALLBACK, default_name, layers, route_paths

CODE = """
from queue_middleware.asgi.application import default_name
def name_of_application(): return default_name(None)
async def endpoint(request): ...
name = default_name(None)
"""


def module(**variables: Any) -> ModuleType:
    """The module of a service as it is when its name is determined."""
    made = ModuleType("made")
    made.__dict__.update(variables)
    exec(compile(CODE, "made.py", "exec"), made.__dict__)
    return made


def spec(name: str) -> ModuleSpec:
    return ModuleSpec(name, None)


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"__name__": "shop.main", "__file__": "/srv/shop/main.py"}, "shop.main"),  # by uvicorn, gunicorn, hypercorn
        ({"__name__": "__main__", "__spec__": None, "__file__": "/srv/main.py"}, "main"),  # python main.py
        ({"__name__": "__main__", "__spec__": None, "__file__": "main.py"}, "main"),
        ({"__name__": "__main__", "__spec__": spec("shop.main"), "__file__": "/srv/shop/main.py"}, "shop.main"),  # python -m
        ({"__name__": "__mp_main__", "__spec__": spec("shop.main"), "__file__": "/srv/shop/main.py"}, "shop.main"),
        ({"__name__": "__mp_main__", "__spec__": None, "__file__": "/srv/main.py"}, "main"),  # multiprocessing, spawned
        ({"__name__": "__main__", "__spec__": spec("__main__"), "__file__": "/srv/main.py"}, "main"),  # cProfile, coverage
        ({"__name__": "__main__", "__spec__": spec("shop.__main__"), "__file__": "/srv/shop/__main__.py"}, "shop"),
        ({"__name__": "shop.__main__", "__spec__": spec("shop.__main__"), "__file__": "/srv/shop/__main__.py"}, "shop"),
        ({"__name__": "__main__", "__spec__": None, "__file__": "/srv/shop/__main__.py"}, "shop"),  # python shop/
        ({"__name__": "__main__", "__spec__": None}, FALLBACK),  # a terminal
    ],
)
def test_the_module_is_found_however_the_service_was_started(variables: dict[str, Any], name: str) -> None:
    assert module(**variables).name == name


def test_a_factory_is_named_after_its_module() -> None:
    shop = module(__name__="shop")
    assert shop.name_of_application() == "shop"


async def test_a_queue_created_in_a_coroutine_is_named_after_its_module() -> None:
    assert default_name(None) == __name__


# --- created by a framework when the first call arrives


@pytest.fixture
def endpoints(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Endpoints of modules that are imported under these names."""
    monkeypatch.delenv("QUEUE_NAME")

    def register(*names: str, **variables: Any) -> list[Any]:
        for name in names:
            monkeypatch.setitem(sys.modules, name, module(**{"__name__": name, **variables}))
        return [sys.modules[name].endpoint for name in names]

    return register


def added_to(*routes: Any) -> list[Any]:
    """Applications whose queue the framework creates."""
    fastapi = FastAPI(routes=list(routes))
    fastapi.add_middleware(QueueMiddleware)
    fastapi.add_middleware(GZipMiddleware)
    return [fastapi, Starlette(routes=routes, middleware=[Middleware(QueueMiddleware), Middleware(GZipMiddleware)])]


async def names(*routes: Any) -> set[str | None]:
    """The names of their queues after the first call."""
    found = set()
    for app in added_to(*routes):
        with pytest.raises((KeyError, TypeError)):  # a scope type for which no response is possible
            await app({"type": "http"}, None, None)
        found |= {layer.settings.name for layer in layers(app.middleware_stack) if isinstance(layer, QueueMiddleware)}
    return found


async def test_the_name_is_the_package_of_most_endpoints(endpoints: Any) -> None:
    one, two, foreign = endpoints("shop.routes", "shop.orders", "login")
    mounted = Mount("/orders", routes=[Route("/", partial(two))])
    assert await names(Route("/login", foreign), Route("/", one), mounted) == {"shop"}


async def test_the_name_of_a_program_that_runs_its_own_server(endpoints: Any) -> None:
    (endpoint,) = endpoints("__main__", __spec__=None, __file__="/srv/shop.py")
    assert await names(Route("/", endpoint)) == {"shop"}


async def test_without_any_indication_the_name_is_the_default(endpoints: Any) -> None:
    assert await names() == {FALLBACK}
    assert await names(Mount("/", app=Starlette())) == {FALLBACK}


def test_the_option_overrides_the_detected_name(endpoints: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert QueueMiddleware(Starlette()).settings.name == __name__
    monkeypatch.setenv("QUEUE_NAME", "shop")
    assert QueueMiddleware(Starlette()).settings.name == "shop"
    assert QueueMiddleware(Starlette(), name="other").settings.name == "other"


async def respond(*_: Any) -> None:
    """An endpoint, or an application."""


def test_the_paths_of_all_routes_are_listed() -> None:
    inner, outer = APIRouter(), APIRouter(prefix="/outer")
    inner.add_api_route("/inner/{id}", respond)
    outer.add_api_route("/here", respond)
    outer.include_router(inner, prefix="/more")
    app = FastAPI(openapi_url=None)
    app.include_router(outer, prefix="/v1")
    app.mount("/mounted", Starlette(routes=[Route("/a", respond), Route("/a", respond, methods=["POST"])]))
    app.mount("/files", respond)
    paths = ["/v1/outer/here", "/v1/outer/more/inner/{id}", "/mounted/a", "/files"]
    assert route_paths(app) == paths
    assert route_paths(QueueMiddleware(app)) == paths
    assert route_paths(respond) == []
