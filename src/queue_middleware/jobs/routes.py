"""Names the route of a job: the template of the path that it calls, e.g. `/items/{id}`, one of few values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Any
from urllib.parse import unquote

from .path_templates import MAX_LENGTH as MAX_LENGTH
from .path_templates import compile_template, takes_slashes, template_of

OTHER = "other"
"""The route of a job whose path no template matches."""
MAX_ROUTES = 100
"""Different routes of one process. Metrics have a series for each, so submitters must not be able to create them."""

_MAX_CACHED = 1024

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
        self._patterns = {pattern: re.compile(translate(pattern)) for pattern in patterns}
        self._is_learning = route_of is None and not patterns
        self._learned: dict[str, re.Pattern[str]] = {}
        """By template; those that match fewer paths are before others."""
        self._names = {OTHER}
        self._by_path: dict[str, str] = {}
        self._called: set[tuple[object, ...]] = set()
        """Calls that have nothing new to teach: method, path and root path as the application left them, and route."""
        self.unshared: set[tuple[str, str]] = set()
        """Methods and templates learned here that other processes on the database may not know."""
        self.has_missed = False
        """Whether a path had no template since the last `remember`: another process may have learned one."""

    def of(self, target: str, method: str, scope: Mapping[str, Any]) -> str:
        """The route of a call of the path `target`, percent-encoded and in Latin-1. `scope` is that of the submission.

        `route_of` gets a copy of it with the path and the method of the call.
        """
        if self._route_of is not None:
            raw_path = target.encode("latin-1")
            return self._ask(self._route_of, {**scope, "method": method, "path": unquote(raw_path), "raw_path": raw_path})
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
        path = unquote(target.encode("latin-1"))
        known = self._patterns or self._learned
        found = next((name for name, pattern in known.items() if pattern.match(path)), None)
        route = self._by_path[target] = self._admit(found)
        self.has_missed |= self._is_learning and found is None
        if len(self._by_path) > _MAX_CACHED:
            self._by_path.clear()
        return route

    def _admit(self, name: str | None) -> str:
        """The name as a route, or `OTHER` for an unusable one and for those after the first `MAX_ROUTES`."""
        if not isinstance(name, str):
            return OTHER
        name = str.__str__(name)  # the value of a member of an enumeration
        if name in self._names:
            return name
        # With a line break or a surrogate it could not be logged or stored.
        if not 0 < len(name) <= MAX_LENGTH or not name.isprintable() or len(self._names) > MAX_ROUTES:
            return OTHER
        self._names.add(name)
        return name

    def learn(self, scope: Mapping[str, Any], root_path: str, route: str) -> None:
        """Learn the template of a path from the scope of a call that has ended.

        `root_path` is that of the call before routing, and `route` is the route that it was given.
        """
        if not self._is_learning or not ("route" in scope or "path_template" in scope):
            return
        called = scope.get("method"), scope.get("path"), scope.get("root_path"), route
        if called in self._called:
            return
        template = template_of(scope, root_path)
        if template is not None:
            if template != route and self._add(template, scope.get("path", "").removeprefix(root_path)):
                self.unshared.add((str(scope.get("method")), template))
            if len(self._called) >= _MAX_CACHED:
                self._called.clear()
            self._called.add(called)

    def remember(self, templates: Iterable[str]) -> None:
        """Learn the templates that other processes have stored. They count as routes when a path first matches them."""
        if self._is_learning:
            self.has_missed = False
            self._by_path.clear()  # what had no template is looked up again
            for template in templates:
                if template.startswith("/"):
                    self._add(template)

    def _add(self, template: str, path: str | None = None) -> bool:
        """Learn a template, unless it is known, does not fit the path of its call, or there are too many."""
        if template in self._learned or takes_slashes(template) > 1:  # matching several takes cubic time
            return False
        pattern = compile_template(template)
        if path is not None and (not pattern.match(path) or self._admit(template) is OTHER):
            return False
        learned = [*self._learned.items(), (template, pattern)]
        learned.sort(key=lambda one: (takes_slashes(one[0]), one[0].count("{"), -len(one[0])))
        self._learned = dict(learned)
        self._by_path.clear()
        return True
