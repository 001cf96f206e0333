"""Finds the default of the option `name`: the name of the wrapped application.

A queue executes the requests of one application. Its name has to be the same under every server and after every restart, so
the name is the module that creates the queue, never the program that imports this module.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import PurePath
from types import FrameType
from typing import Any

FALLBACK = "application"
"""The name if nothing distinguishes the application."""
_OURS = __name__.partition(".")[0]
_FRAMEWORKS = frozenset({_OURS, "starlette", "fastapi", "litestar", "quart", "functools", "contextlib"})
"""Packages that construct middlewares for others: the caller is the first frame outside of them."""
_PROGRAMS = frozenset(
    {"asyncio", "anyio", "trio", "uvloop", "uvicorn", "gunicorn", "hypercorn", "granian", "daphne", "runpy", "threading"}
    | {"importlib", "_frozen_importlib", "_frozen_importlib_external"}
)
"""Packages that import or serve applications: their callers differ from one start to the next."""


def default_name(app: object) -> str:
    """The name of the application that the nearest caller outside this package wraps.

    It is the name of the module that creates the queue. If a framework creates it, as with `app.add_middleware`, it is the
    package that most endpoints of the application are in; without endpoints it is `FALLBACK`.
    """
    return _module_of_caller(sys._getframe(1)) or _package_of_endpoints(app) or FALLBACK  # noqa: SLF001 - the only access to the caller's frame


def _module_of_caller(frame: FrameType | None) -> str:
    while frame is not None:
        name = str(frame.f_globals.get("__name__") or "")
        package = name.partition(".")[0]
        # A framework creates the queue in a coroutine when the first request arrives; the frames above are the server's.
        is_serving = package in _FRAMEWORKS and bool(frame.f_code.co_flags & inspect.CO_COROUTINE)
        if package in _PROGRAMS or is_serving:
            return ""
        if package not in _FRAMEWORKS:
            return _module_name(frame.f_globals)
        frame = frame.f_back
    return ""


def _module_name(module: dict[str, Any]) -> str:
    """The name under which the module would be imported, even if it was started as a program."""
    name: str = module.get("__name__") or ""
    if name in ("__main__", "__mp_main__"):
        # `python -m package.module` sets a spec with the name; `python module.py` and debuggers set only the file.
        spec = getattr(module.get("__spec__"), "name", None) or "__main__"
        name = spec if spec not in ("__main__", "__mp_main__") else _name_of_file(module.get("__file__"))
    return name.removesuffix(".__main__")


def _name_of_file(file: str | None) -> str:
    if not file:
        return ""
    path = PurePath(file)
    return path.parent.name if path.stem == "__main__" else path.stem


def _package_of_endpoints(app: object) -> str:
    packages = Counter(_endpoint_packages(app))
    return max(packages, key=packages.__getitem__) if packages else ""  # the first one of equals


def _endpoint_packages(app: object) -> Iterator[str]:
    for layer in layers(app):
        for route in _routes(layer):
            endpoint = getattr(route, "endpoint", None)
            while isinstance(endpoint, partial):
                endpoint = endpoint.func
            name = getattr(endpoint, "__module__", None)
            module = sys.modules.get(name) if isinstance(name, str) else None
            package = "" if module is None else _module_name(vars(module)).partition(".")[0]
            if package and package not in _FRAMEWORKS:
                yield package


def layers(app: object) -> Iterator[object]:
    """The application, and each application that its middlewares wrap."""
    for _ in range(100):
        yield app
        app = getattr(app, "app", None)
        if app is None:
            return


def route_paths(app: object) -> list[str]:
    """The path templates of the application's routes, in its order, without repeats; empty if it does not list them."""
    return list(dict.fromkeys(path for layer in layers(app) for path in _paths(layer, "")))


def _paths(router: object, prefix: str) -> Iterator[str]:
    routes = getattr(router, "routes", None)
    for route in routes if isinstance(routes, list | tuple) else ():
        path = getattr(route, "path", None)
        included = getattr(route, "original_router", None)  # of FastAPI, which keeps an included router as one route
        if included is not None:
            yield from _paths(included, prefix + str(getattr(getattr(route, "include_context", None), "prefix", "")))
        elif getattr(route, "routes", None):
            yield from _paths(route, prefix + (path or ""))
        elif isinstance(path, str):
            yield prefix + path


def _routes(router: object) -> Iterator[object]:
    routes = getattr(router, "routes", None)
    for route in routes if isinstance(routes, list | tuple) else ():
        yield route
        yield from _routes(route)
