"""Path templates such as `/items/{id}`: read from the scope of a call that has ended, and compiled to patterns of paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import Any

MAX_LENGTH = 200
"""Characters of a template."""

_PARAMETER = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_TYPES = {"int": "[0-9]+", "float": r"[0-9]+(?:\.[0-9]+)?", "uuid": "[0-9a-fA-F-]{32,36}"}


def template_of(scope: Mapping[str, Any], root_path: str) -> str | None:
    """The path template that a framework left in the scope of a call; None without one.

    Starlette and FastAPI leave it in `route`, Litestar in `path_template`. The template is relative to the application, also
    if a mount has handled the call. It consists only of what the application's routes declare, and never of a value, which a
    client has chosen: without the declaration of a mount there is no template.
    """
    template = getattr(_route(scope), "path", None) or scope.get("path_template")
    if not isinstance(template, str):
        return None
    mounted = str(scope.get("root_path", ""))
    if mounted != root_path:
        before = str(scope.get("app_root_path", root_path))
        if not mounted.startswith(root_path) or not root_path.startswith(before):
            return None
        routes = getattr(scope.get("router"), "routes", None)
        mount = _mount(routes, mounted[len(before) :], len(root_path) - len(before))
        template = None if mount is None else mount + template
    return template if template is not None and template.startswith("/") and len(template) <= MAX_LENGTH else None


def _route(scope: Mapping[str, Any]) -> object:
    """The route of a call. FastAPI leaves that of an included router, and beside it the same with the router's prefix."""
    route = scope.get("route")
    fastapi = scope.get("fastapi")
    context = fastapi.get("effective_route_context") if isinstance(fastapi, Mapping) else None
    return context if context is not None and getattr(context, "original_route", None) is route else route


def _mount(routes: object, path: str, skipped: int) -> str | None:
    """The templates of nested mounts that together have consumed the path, without those of its first `skipped` characters."""
    if not path:
        return ""
    for mount in routes if isinstance(routes, Iterable) else ():
        inner = getattr(mount, "routes", None)
        own = "" if hasattr(mount, "host") else getattr(mount, "path", None)
        if inner is None or not isinstance(own, str):
            continue
        pattern = compile_template(own)
        for end in (index for index in range(len(path) + 1) if path[index : index + 1] in ("", "/")):
            if pattern.match(path[:end]) and (rest := _mount(inner, path[end:], max(0, skipped - end))) is not None:
                return rest if 0 < end <= skipped else own + rest
    return None


def takes_slashes(template: str) -> int:
    """How many parameters of the template stand for several segments."""
    return sum(_takes_slashes(match) for match in _PARAMETER.finditer(template))


def _takes_slashes(parameter: re.Match[str]) -> bool:
    return "path" in (parameter[1], parameter[2])


@lru_cache(maxsize=256)
def compile_template(template: str) -> re.Pattern[str]:
    """A pattern for the decoded paths that the template stands for.

    The time for a path, which a client chooses, must not explode. So a parameter that is followed by another one in its segment
    ends at the first place where it can, and is not tried again with another end; this finds a match if there is one.
    """
    parameters = list(_PARAMETER.finditer(template))
    parts = [re.escape(template[: parameters[0].start()] if parameters else template)]
    for parameter, following in zip_longest(parameters, parameters[1:]):
        text = template[parameter.end() : following.start() if following else len(template)]
        literal = re.escape(text)
        if _takes_slashes(parameter):
            parts.append(".*" + literal)
        elif following and "/" not in text:
            parts.append(f"(?>[^/]+?{literal})")
        elif parts[-1].endswith("/") and text[:1] in ("", "/"):
            parts.append(_TYPES.get(parameter[2], "[^/]+") + literal)
        else:
            parts.append("[^/]+" + literal)
    return re.compile("".join(parts) + r"\Z", re.DOTALL)
