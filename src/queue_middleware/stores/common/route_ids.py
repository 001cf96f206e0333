"""The ids of routes: a job's row holds a small integer in place of the method and the template of its call."""

from __future__ import annotations

from collections.abc import Sequence

from queue_middleware.jobs.routes import OTHER

from .transaction import Transaction

MAX_ROWS = 200
"""Rows of the table `route`. Later routes are stored as `OTHER`."""
OTHER_ID = 0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"})
"""Methods that are distinguished, because a submitter may choose any."""


class RouteIds:
    """Ids of the routes that this process has used. Used in the writer's thread."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], int] = {}
        self._templates: dict[int, str] = {OTHER_ID: OTHER}

    def id_of(self, transaction: Transaction, method: str, template: str) -> int:
        """The id of a route, which is stored if it is new."""
        route = self._ids.get((method, template))
        return self._find(transaction, method, template) if route is None else route

    def _find(self, transaction: Transaction, method: str, template: str) -> int:
        if template == OTHER or method not in _METHODS:
            return OTHER_ID
        row = transaction.one("route_id", (method, template))
        if row is None:
            transaction.change("insert_route", {"method": method, "template": template, "most": MAX_ROWS})
            row = transaction.one("route_id", (method, template))
        route = self._ids[method, template] = OTHER_ID if row is None else row[0]
        return route

    def template(self, transaction: Transaction, route: int) -> str:
        """The template of a stored route."""
        template = self._templates.get(route)
        if template is None:
            row = transaction.one("route_template", (route,))
            template = self._templates[route] = OTHER if row is None else row[0]
        return template

    def forget(self) -> None:
        """Read the ids again: the transaction that stored them may have been rolled back."""
        self._ids.clear()
        self._templates = {OTHER_ID: OTHER}


def keep_routes(transaction: Transaction, batch: Sequence[Sequence[tuple[str, str]]]) -> list[None]:
    """Store routes."""
    for routes in batch:
        for method, template in routes:
            transaction.routes.id_of(transaction, method, template)
    return [None] * len(batch)
