"""The routes of fal's queue."""

import pytest

from queue_middleware.errors import MethodNotAllowed, UnknownRoute
from queue_middleware.web.fal import routes
from queue_middleware.web.fal.routes import METHODS, Operation, Route, find_host_route, find_route

ID = "0192f0c0-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/submit", Route(Operation.SUBMIT, target="/")),
        ("POST", "/submit/", Route(Operation.SUBMIT, target="/")),
        ("GET", "/submit/a%2Fb/c/", Route(Operation.SUBMIT, target="/a%2Fb/c/")),
        ("GET", f"/{ID}/get", Route(Operation.STATUS, ID)),
        ("POST", f"/{ID}/get/", Route(Operation.STATUS, ID)),
        ("GET", f"/{ID}/status", Route(Operation.STATUS, ID)),
        ("GET", f"/requests/{ID}/status", Route(Operation.STATUS, ID)),
        ("GET", f"/requests/{ID}/status/", Route(Operation.STATUS, ID)),
        ("GET", f"/requests/{ID}/status/stream", Route(Operation.STREAM, ID)),
        ("HEAD", f"/requests/{ID}/status/stream/", Route(Operation.STREAM, ID)),
        ("GET", f"/{ID}/response", Route(Operation.RESPONSE, ID)),
        ("GET", f"/requests/{ID}/response", Route(Operation.RESPONSE, ID)),
        ("HEAD", f"/requests/{ID}/response/", Route(Operation.RESPONSE, ID)),
        ("PUT", f"/{ID}/cancel", Route(Operation.CANCEL, ID)),
        ("POST", f"/{ID}/cancel/", Route(Operation.CANCEL, ID)),
        ("PUT", f"/requests/{ID}/cancel", Route(Operation.CANCEL, ID)),
        ("GET", "/.well-known/jwks.json", Route(Operation.KEYS)),
        ("GET", "/.well-known/jwks.json/", Route(Operation.KEYS)),
        ("GET", "/openapi.json", Route(Operation.DOCUMENT)),
        ("GET", "/not-an-id/status", Route(Operation.STATUS, "not-an-id")),
    ],
)
def test_routes(method: str, path: str, route: Route) -> None:
    assert find_route(method, path) == route


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/nothing",
        "/submitted",
        f"/{ID}",
        f"/requests/{ID}",
        f"/requests/{ID}/get",
        "/requests/status",
        "/run",
        "/run/",
        "/run/status",
        f"/{ID}/status//",
        f"/x/requests/{ID}/status",
        f"/requests/{ID}/status/x",
        f"/requests/{ID}/status/stream/x",
        f"/requests/{ID}/stream",
    ],
)
def test_paths_without_a_route(path: str) -> None:
    with pytest.raises(UnknownRoute):
        find_route("GET", path)


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_methods(operation: Operation, method: str) -> None:
    fixed = {Operation.SUBMIT: "/submit/x", Operation.KEYS: "/.well-known/jwks.json", Operation.DOCUMENT: "/openapi.json"}
    path = fixed.get(operation, f"/requests/{ID}/{operation}")
    if method in METHODS[operation] or (method == "HEAD" and METHODS[operation] == ("GET",)):
        assert find_route(method, path).operation is operation
    else:
        with pytest.raises(MethodNotAllowed) as refusal:
            find_route(method, path)
        assert refusal.value.headers == ((b"allow", ", ".join(METHODS[operation]).encode()),)


APP_ROUTES = [
    ("POST", "/o/a", Route(Operation.SUBMIT, target="/", app="/o/a")),
    ("POST", "/o/a/", Route(Operation.SUBMIT, target="/", app="/o/a")),
    ("GET", "/fal-ai/wan2.1/v2.2/text%2Fvideo/", Route(Operation.SUBMIT, target="/v2.2/text%2Fvideo/", app="/fal-ai/wan2.1")),
    ("POST", "/o/a//x", Route(Operation.SUBMIT, target="//x", app="/o/a")),
    ("POST", "/workflows/o/a", Route(Operation.SUBMIT, target="/", app="/workflows/o/a")),
    ("POST", "/comfy/o/a/b", Route(Operation.SUBMIT, target="/b", app="/comfy/o/a")),
    ("POST", "/123-demo", Route(Operation.SUBMIT, target="/", app="/123/demo")),
    ("POST", "/123-demo/", Route(Operation.SUBMIT, target="/", app="/123/demo")),
    ("POST", "/123-demo/x", Route(Operation.SUBMIT, target="/", app="/123-demo/x")),
    ("GET", f"/o/a/requests/{ID}", Route(Operation.RESPONSE, ID, app="/o/a")),
    ("HEAD", f"/o/a/requests/{ID}/", Route(Operation.RESPONSE, ID, app="/o/a")),
    ("GET", f"/o/a/requests/{ID}/response", Route(Operation.RESPONSE, ID, app="/o/a")),
    ("GET", f"/o/a/requests/{ID}/status", Route(Operation.STATUS, ID, app="/o/a")),
    ("GET", f"/o/a/requests/{ID}/status/", Route(Operation.STATUS, ID, app="/o/a")),
    ("PUT", f"/o/a/requests/{ID}/cancel", Route(Operation.CANCEL, ID, app="/o/a")),
    ("PUT", f"/comfy/o/a/requests/{ID}/cancel/", Route(Operation.CANCEL, ID, app="/comfy/o/a")),
    ("GET", f"/123-demo/requests/{ID}/status", Route(Operation.STATUS, ID, app="/123/demo")),
    ("GET", f"/o/a/v1/fast/requests/{ID}/response/", Route(Operation.RESPONSE, ID, app="/o/a")),
    ("GET", f"/o/a/v1/requests/{ID}", Route(Operation.RESPONSE, ID, app="/o/a")),
    ("PUT", f"/o/a/v1/requests/{ID}/cancel", Route(Operation.CANCEL, ID, app="/o/a")),
    # Directly below the app a malformed id is an id; below a path it belongs to the application.
    ("GET", "/o/a/requests/not-an-id/status", Route(Operation.STATUS, "not-an-id", app="/o/a")),
    ("GET", "/o/a/requests//status", Route(Operation.STATUS, "", app="/o/a")),
    ("GET", "/o/a/v1/requests/not-an-id", Route(Operation.SUBMIT, target="/v1/requests/not-an-id", app="/o/a")),
    ("POST", f"/o/a/v1/requests/{ID}/approve", Route(Operation.SUBMIT, target=f"/v1/requests/{ID}/approve", app="/o/a")),
    ("POST", "/o/a/v1/requests", Route(Operation.SUBMIT, target="/v1/requests", app="/o/a")),
    ("POST", "/o/a/requests-list", Route(Operation.SUBMIT, target="/requests-list", app="/o/a")),
]


@pytest.mark.parametrize(("method", "path", "route"), APP_ROUTES)
def test_the_queue_form(method: str, path: str, route: Route) -> None:
    assert find_route(method, f"/run{path}") == find_host_route(method, path) == route


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "*",
        "/o",
        "/o/",
        "//a",
        "/favicon.ico",
        "/openapi.json",
        "/.env/x",
        "/o/.git/config",
        "/o%2Fa/x",
        "/workflows/o",
        "/workflows/workflows/a",
        "/o/requests/x",
        "/o/a/requests",
        "/o/a/requests/",
        f"/o/a/requests/{ID}/get",
        f"/o/a/requests/{ID}/status/x",
        f"/requests/{ID}",
    ],
)
def test_paths_of_an_app_without_a_route(path: str) -> None:
    with pytest.raises(UnknownRoute):
        find_host_route("GET", path)
    with pytest.raises(UnknownRoute):
        find_route("GET", f"/run{path}")


def test_a_long_path_takes_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups: list[str] = []

    class CountingDict(dict[str, Operation]):
        def get(self, segment: str, default: Operation | None = None) -> Operation | None:  # type: ignore[override]
            lookups.append(segment)
            return super().get(segment, default)

    monkeypatch.setattr(routes, "APP_SUFFIXES", CountingDict(routes.APP_SUFFIXES))
    path = "/x" + "/requests" * 1000
    assert find_host_route("POST", f"/o/a{path}") == Route(Operation.SUBMIT, target=path, app="/o/a")
    assert len("".join(lookups)) < 50 * 1000


def test_the_key_set_is_at_the_root_of_a_host_too() -> None:
    assert find_host_route("GET", "/.well-known/jwks.json") == Route(Operation.KEYS)
    with pytest.raises(MethodNotAllowed):
        find_host_route("POST", "/.well-known/jwks.json")


@pytest.mark.parametrize(("method", "path"), [("POST", f"/o/a/requests/{ID}"), ("DELETE", f"/o/a/requests/{ID}/status")])
def test_methods_in_the_queue_form(method: str, path: str) -> None:
    with pytest.raises(MethodNotAllowed):
        find_host_route(method, path)


def test_the_refusal_of_a_path_without_submit_names_the_way_to_queue_it() -> None:
    with pytest.raises(UnknownRoute, match=r"'/generate'; to queue a call, put /submit in front of its path$"):
        find_route("POST", "/generate")
    with pytest.raises(UnknownRoute, match=r"'/requests/one/two'$"):
        find_route("GET", "/requests/one/two")
