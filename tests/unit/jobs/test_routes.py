"""Routes: which template a call gets, in which order of sources, and how few there can be."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

from queue_middleware.jobs.routes import MAX_LENGTH, MAX_ROUTES, OTHER, RouteTemplates


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


def test_a_path_that_is_not_percent_encoded_is_decoded_as_for_the_call() -> None:
    seen: list[Any] = []
    RouteTemplates((), seen.append).of("/caf\xc3\xa9", "POST", {})
    assert seen == [{"method": "POST", "path": "/café", "raw_path": b"/caf\xc3\xa9"}]
    assert RouteTemplates(["/café"]).of("/caf\xc3\xa9", "POST", {}) == "/café"


@pytest.mark.parametrize("returned", [None, "", "x" * (MAX_LENGTH + 1), 7, [], "two\nlines", "\ud800"])
def test_an_unusable_name_is_other(returned: Any) -> None:
    assert RouteTemplates((), lambda scope: returned).of("/a", "POST", {}) == OTHER


def test_a_member_of_an_enumeration_is_its_value() -> None:
    class Kind(str, Enum):  # noqa: UP042 - as applications may write it
        IMAGE = "image"

    routes = RouteTemplates((), lambda scope: Kind.IMAGE)
    assert [f"{routes.of('/a', 'POST', {})}" for _ in range(2)] == ["image", "image"]


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


def test_a_call_with_nothing_new_is_not_examined_again() -> None:
    reads: list[str] = []

    class Route:
        @property
        def path(self) -> str:
            reads.append("path")
            return "/items/{id}"

    routes = RouteTemplates()
    scope = {"method": "POST", "path": "/items/1", "root_path": "", "route": Route()}
    for _ in range(5):
        routes.learn(scope, "", routes.of("/items/1", "POST", {}))
    assert len(reads) == 2  # with the route `OTHER`, then with the learned one
    routes.learn({**scope, "method": "PUT"}, "", "/items/{id}")
    assert len(reads) == 3


def test_a_call_that_left_no_template_is_examined_again() -> None:
    routes = RouteTemplates()
    routes.learn({"path": "/items/1", "route": None}, "", OTHER)
    routes.learn(after_call("/items/1", "/items/{id}"), "", OTHER)
    assert routes.of("/items/1", "POST", {}) == "/items/{id}"


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
        routes.learn(after_call(f"/y/{number}", "/y/{number}"), "", OTHER)
    assert len(routes._by_path) < 2000
    assert len(routes._called) < 2000


def test_a_restart_learns_what_other_processes_have_stored_meanwhile() -> None:
    routes = RouteTemplates()
    assert routes.of("/items/5", "POST", {}) == OTHER
    for _ in range(3):
        routes.remember(["/items/{id}"])
    assert routes.of("/items/5", "POST", {}) == "/items/{id}"
    assert len(routes._learned) == 1


def test_templates_that_are_no_longer_used_leave_room_for_new_ones() -> None:
    routes = RouteTemplates()
    routes.remember(f"/v1/{number}/{{id}}" for number in range(2 * MAX_ROUTES))
    routes.learn(after_call("/v2/1", "/v2/{id}"), "", OTHER)
    assert routes.of("/v2/2", "POST", {}) == "/v2/{id}"
    assert len({routes.of(f"/v1/{number}/x", "POST", {}) for number in range(2 * MAX_ROUTES)}) == MAX_ROUTES


def test_a_parameter_that_takes_slashes_comes_last() -> None:
    routes = RouteTemplates()
    routes.remember(["/items/{rest:path}", "/items/{id}/{part}", "/items/{id}", "/items/{number:int}"])
    assert [routes.of(path, "POST", {}) for path in ("/items/7", "/items/a", "/items/a/b", "/items/a/b/c")] == [
        "/items/{number:int}",
        "/items/{id}",
        "/items/{id}/{part}",
        "/items/{rest:path}",
    ]


def test_a_template_with_several_parameters_that_take_slashes_is_not_learned() -> None:
    routes = RouteTemplates()
    routes.learn(after_call("/a/b/c", "/{one:path}/b/{two:path}"), "", OTHER)
    assert routes.of("/a/b/c", "POST", {}) == OTHER


def test_what_was_learned_is_shared_and_what_others_learned_replaces_other() -> None:
    here, there = RouteTemplates(), RouteTemplates()
    assert there.of("/items/1", "POST", {}) == OTHER
    assert there.has_missed
    here.learn(after_call("/items/1", "/items/{id}", method="POST"), "", OTHER)
    here.learn(after_call("/items/2", "/items/{id}", method="POST"), "", OTHER)
    assert here.unshared == {("POST", "/items/{id}")}
    there.remember(["/items/{id}"])
    assert (there.has_missed, there.unshared) == (False, set())
    assert there.of("/items/1", "POST", {}) == "/items/{id}"


def test_patterns_miss_nothing() -> None:
    routes = RouteTemplates(["/a*"])
    assert routes.of("/b", "POST", {}) == OTHER
    assert not routes.has_missed
