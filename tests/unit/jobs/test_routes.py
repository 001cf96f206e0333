"""Routes: which template a call gets, in which order of sources, and how few there can be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from queue_middleware.jobs.routes import MAX_LENGTH, MAX_ROUTES, OTHER, RouteTemplates, template_of


def after_call(path: str, template: str, **entries: Any) -> dict[str, Any]:
    """The scope of a call as FastAPI leaves it."""
    return {"path": path, "root_path": "", "route": SimpleNamespace(path=template), **entries}


def test_route_of_comes_first() -> None:
    seen: list[Any] = []

    def route_of(scope: Any) -> str:
        seen.append(scope)
        return "named"

    routes = RouteTemplates(["/a*"], route_of)
    assert routes.of("/a/caf%C3%A9", "PUT", {"type": "http", "method": "POST", "path": "/fal/queue/a"}) == "named"
    assert seen == [{"type": "http", "method": "PUT", "path": "/a/café", "raw_path": b"/a/caf%C3%A9"}]


@pytest.mark.parametrize("returned", [None, "", "x" * (MAX_LENGTH + 1), 7])
def test_an_unusable_name_is_other(returned: Any) -> None:
    assert RouteTemplates((), lambda scope: returned).of("/a", "POST", {}) == OTHER


def test_an_error_of_route_of_is_reported_and_the_route_is_other() -> None:
    errors: list[Exception] = []

    def route_of(scope: Any) -> str:
        raise LookupError("no such route")

    assert RouteTemplates((), route_of, errors.append).of("/a", "POST", {}) == OTHER
    assert [str(error) for error in errors] == ["no such route"]


def test_patterns_of_the_option_paths_name_routes() -> None:
    routes = RouteTemplates(["/models/*", "/generate"])
    assert [routes.of(path, "POST", {}) for path in ("/models/7", "/models/8", "/generate")] == [
        "/models/*",
        "/models/*",
        "/generate",
    ]
    routes.learn(after_call("/models/7", "/models/{id}"), "", "/models/*")
    assert routes.of("/models/9", "POST", {}) == "/models/*"


def test_a_template_is_learned_from_the_first_call_of_its_shape() -> None:
    routes = RouteTemplates()
    assert routes.of("/items/1", "POST", {}) == OTHER
    routes.learn(after_call("/items/1", "/items/{id}"), "", OTHER)
    assert [routes.of(path, "POST", {}) for path in ("/items/1", "/items/2%203", "/items/1/2")] == [
        "/items/{id}",
        "/items/{id}",
        OTHER,
    ]


def test_a_path_without_parameters_is_preferred() -> None:
    routes = RouteTemplates()
    routes.learn(after_call("/items/1", "/items/{id}"), "", OTHER)
    routes.learn(after_call("/items/new", "/items/new"), "", "/items/{id}")
    assert [routes.of(path, "POST", {}) for path in ("/items/new", "/items/2")] == ["/items/new", "/items/{id}"]


def test_a_parameter_of_type_path_takes_slashes() -> None:
    routes = RouteTemplates()
    routes.learn(after_call("/files/a/b", "/files/{name:path}"), "", OTHER)
    routes.learn(after_call("/plain/a", "/plain/{name}"), "", OTHER)
    assert routes.of("/files/c/d/e", "POST", {}) == "/files/{name:path}"
    assert routes.of("/plain/c/d", "POST", {}) == OTHER


def test_a_template_that_does_not_fit_its_path_is_ignored() -> None:
    routes = RouteTemplates()
    routes.learn(after_call("/public/1", "/internal/{id}"), "", OTHER)
    routes.learn({"path": "/a", "route": SimpleNamespace(path=object())}, "", OTHER)
    routes.learn({"path": "/a"}, "", OTHER)
    assert routes.of("/internal/1", "POST", {}) == OTHER


def test_stored_templates_are_known_after_a_restart() -> None:
    routes = RouteTemplates()
    routes.remember(["/items/{id}", "named"])
    assert [routes.of(path, "POST", {}) for path in ("/items/5", "/named")] == ["/items/{id}", OTHER]


def test_there_are_at_most_so_many_routes() -> None:
    routes = RouteTemplates((), lambda scope: scope["path"])
    names = {routes.of(f"/{number}", "POST", {}) for number in range(3 * MAX_ROUTES)}
    assert len(names) == MAX_ROUTES + 1
    assert OTHER in names
    assert routes.of("/0", "POST", {}) == "/0"


def test_the_number_of_learned_routes_and_of_cached_paths_is_bounded() -> None:
    routes = RouteTemplates()
    for number in range(3 * MAX_ROUTES):
        routes.learn(after_call(f"/{number}", f"/{number}"), "", OTHER)
    assert len({routes.of(f"/{number}", "POST", {}) for number in range(3 * MAX_ROUTES)}) == MAX_ROUTES + 1
    for number in range(5000):
        routes.of(f"/x/{number}", "POST", {})
    assert len(routes._by_path) < 2000


@pytest.mark.parametrize(
    ("scope", "root_path", "template"),
    [
        (after_call("/items/1", "/items/{id}"), "", "/items/{id}"),
        ({"path_template": "/items/{id:int}"}, "", "/items/{id:int}"),
        (after_call("/api/sub/items/1", "/items/{id}", root_path="/api/sub"), "/api", "/sub/items/{id}"),
        (after_call("/acme/items/1", "/items/{id}", root_path="/acme", path_params={"tenant": "acme", "id": 1}), "",
         "/{tenant}/items/{id}"),
        ({}, "", None),
        (after_call("/a", "no slash"), "", None),
        (after_call("/a", "/" + "x" * MAX_LENGTH), "", None),
    ],
)  # fmt: skip
def test_the_template_is_read_from_the_scope(scope: Any, root_path: str, template: str | None) -> None:
    assert template_of(scope, root_path) == template
