"""Examines a served application: the options that it sets in code, and which of its routes can be queued."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from queue_middleware.asgi.application import layers, route_paths
from queue_middleware.asgi.attach import attached_queue
from queue_middleware.cli.exit_codes import NotUnderstood
from queue_middleware.errors import QueueError
from queue_middleware.runtime.operator_methods import OperatorMethods
from queue_middleware.settings import Options, Settings
from queue_middleware.stores.administration import Finding, Level
from queue_middleware.web.path_rules import PathPatterns

_DELICATE = re.compile(r"admin|debug|internal|manage|metrics|secret|token|key|user", re.IGNORECASE)
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Application:
    """What a served application shows without being started."""

    settings: Settings
    """Of its queue."""
    identifies_clients: bool
    paths: list[str]
    """The templates of its routes, as far as its framework lists them."""


def load_application(name: str) -> Application:
    """Import `module:attribute` from the present folder, as servers do. Raises `NotUnderstood`, and what the module raises."""
    module_name, separator, attribute = name.partition(":")
    if not (module_name and separator and attribute):
        raise NotUnderstood(f"--app {name!r}: write a module and a name, e.g. main:app")
    sys.path.insert(0, str(Path.cwd()))
    try:
        app: object = importlib.import_module(module_name)
        for part in attribute.split("."):
            app = getattr(app, part)
    except QueueError:
        raise
    except Exception as error:
        raise NotUnderstood(f"--app {name!r}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return _application(name, app)


def _application(name: str, app: object) -> Application:
    for layer in layers(app):
        for queue in (layer, attached_queue(layer)):
            settings = getattr(queue, "__dict__", {}).get("settings")
            if isinstance(settings, Settings):
                return Application(settings, bool(getattr(queue, "identifies_clients", False)), route_paths(app))
        for added in getattr(layer, "user_middleware", ()):
            if isinstance(kind := getattr(added, "cls", None), type) and issubclass(kind, OperatorMethods):
                settings = Settings.load({one: value for one, value in added.kwargs.items() if one in Options.__annotations__})
                identifies = bool(settings.api_keys or added.kwargs.get("authenticate"))
                return Application(settings, identifies, route_paths(app))
    raise NotUnderstood(f"--app {name!r} has no queue; name the object that is served, e.g. app = QueueMiddleware(app)")


def examine_paths(settings: Settings, application: Application | None) -> Iterator[Finding]:
    """Which paths can be queued; the routes by name, if the application lists them."""
    patterns = PathPatterns(settings.paths)
    paths = [] if application is None else application.paths
    queued = [path for path in paths if not patterns or patterns.match(path)]
    delicate = [path for path in queued if _DELICATE.search(path)]
    text = (
        "every path of the application can be queued"
        if not patterns
        else f"{len(settings.paths)} patterns of paths can be queued"
    )
    if queued:
        shown = (delicate or queued)[:_SHOWN]
        more = ", …" if len(delicate or queued) > len(shown) else ""
        text = f"{len(queued)} of {len(paths)} routes can be queued: {', '.join(shown)}{more}"
    if delicate or not patterns:
        yield Finding(Level.WARNING, text, "list the paths that may be queued: QUEUE_PATHS=/generate,…")
    else:
        yield Finding(Level.OK, text)
