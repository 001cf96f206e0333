"""Names the route of a job: the template of the path that it calls, e.g. `/items/{id}`, one of few values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Any
from urllib.parse import unquote

OTHER = "other"
"""The route of a job whose path no template matches."""
MAX_ROUTES = 100
"""Different routes of one process. Metrics have a series for each, so submitters must not be able to create them."""
MAX_LENGTH = 200
"""Characters of a route."""

_MAX_CACHED = 1024
_PARAMETER = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")

RouteOf = Callable[[Mapping[str, Any]], str | None]
"""The option `route_of`: from the ASGI scope of the queued call to its route; None for `OTHER`."""


class RouteTemplates:
    """The routes of one queue.

    A route is what `route_of` returns; without it the first pattern of the option `paths` that matches; without patterns the
    template that the application's framework left in the scope of an earlier call with such a path; else `OTHER`. `on_error`
    receives what `route_of` raises; the route is then `OTHER`.
    """

    def __init__(
        self,
        patterns: Sequence[str] = (),
        route_of: RouteOf | None = None,
        on_error: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._route_of = route_of
        self._on_error = on_error
        self._patterns = [(re.compile(translate(pattern)), pattern) for pattern in patterns]
        self._is_learning = route_of is None and not patterns
        self._learned: list[tuple[re.Pattern[str], str]] = []
        self._names = {OTHER}
        self._by_path: dict[str, str] = {}

    def of(self, target: str, method: str, scope: Mapping[str, Any]) -> str:
        """The route of a call of the percent-encoded path `target`. `scope` is that of the submission.

        `route_of` gets a copy of it with the path and the method of the call.
        """
        if self._route_of is not None:
            return self._ask(self._route_of, {**scope, "method": method, "path": unquote(target), "raw_path": target.encode()})
        route = self._by_path.get(target)
        return self._look_up(target) if route is None else route

    def _ask(self, route_of: RouteOf, scope: Mapping[str, Any]) -> str:
        try:
            return self._admit(route_of(scope))
        except Exception as error:
            # A submission must not fail because it cannot be counted under its route.
            self._on_error(error)
            return OTHER

    def _look_up(self, target: str) -> str:
        path = unquote(target)
        found = next((name for pattern, name in self._patterns or self._learned if pattern.match(path)), None)
        route = self._by_path[target] = self._admit(found)
        if len(self._by_path) > _MAX_CACHED:
            self._by_path.clear()
        return route

    def _admit(self, name: str | None) -> str:
        """The name as a route, or `OTHER` for an unusable one and for those after the first `MAX_ROUTES`."""
        if name in self._names:
            return name or OTHER
        if not isinstance(name, str) or not 0 < len(name) <= MAX_LENGTH or len(self._names) > MAX_ROUTES:
            return OTHER
        self._names.add(name)
        return name

    def learn(self, scope: Mapping[str, Any], root_path: str, route: str) -> None:
        """Learn the template of a path from the scope of a call that has ended.

        `root_path` is that of the call before routing, and `route` is the route that it was given.
        """
        if not self._is_learning:
            return
        template = template_of(scope, root_path)
        if template is not None and template != route:
            self._add(template, scope.get("path", ""), root_path)

    def _add(self, template: str, path: str, root_path: str) -> None:
        pattern = _compile(template)
        if any(known == template for _, known in self._learned) or not pattern.match(path.removeprefix(root_path)):
            return
        if self._admit(template) is OTHER:
            return
        self._learned.append((pattern, template))
        self._learned.sort(key=lambda learned: (learned[1].count("{"), -len(learned[1])))
        self._by_path.clear()

    def remember(self, templates: Iterable[str]) -> None:
        """Learn the templates that earlier processes have stored."""
        for template in templates:
            if self._is_learning and template.startswith("/") and self._admit(template) is not OTHER:
                self._learned.append((_compile(template), template))
        self._learned.sort(key=lambda learned: (learned[1].count("{"), -len(learned[1])))


def template_of(scope: Mapping[str, Any], root_path: str) -> str | None:
    """The path template that a framework left in the scope of a call; None without one.

    Starlette and FastAPI leave it in `route`, Litestar in `path_template`. The template is relative to the application, also
    if a mount has handled the call.
    """
    template = getattr(scope.get("route"), "path", None) or scope.get("path_template")
    if not isinstance(template, str):
        return None
    mounted = str(scope.get("root_path", ""))
    if mounted != root_path and mounted.startswith(root_path):
        template = _without_values(mounted.removeprefix(root_path), scope.get("path_params")) + template
    return template if template.startswith("/") and len(template) <= MAX_LENGTH else None


def _without_values(prefix: str, parameters: object) -> str:
    """The path of a mount with its parameters in place of their values, which the submitter has chosen."""
    if not isinstance(parameters, Mapping):
        return prefix
    names = {str(value): f"{{{name}}}" for name, value in parameters.items()}
    return "/".join(names.get(segment, segment) if segment else "" for segment in prefix.split("/"))


def _compile(template: str) -> re.Pattern[str]:
    """A pattern for the decoded paths that the template stands for."""
    parts: list[str] = []
    end = 0
    for match in _PARAMETER.finditer(template):
        takes_slashes = "path" in (match[1], match[2])
        parts += [re.escape(template[end : match.start()]), ".*" if takes_slashes else "[^/]+"]
        end = match.end()
    return re.compile("".join((*parts, re.escape(template[end:]))) + r"\Z", re.DOTALL)
