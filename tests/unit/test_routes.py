"""Which path of fal's queue means what."""

import pytest

from queue_middleware.errors import MethodNotAllowed, UnknownRoute
from queue_middleware.wire import routes
from queue_middleware.wire.routes import METHODS, Route, Verb, find_host_route, find_route

ID = "0192f0c0-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/submit", Route(Verb.SUBMIT, target="/")),
        ("POST", "/submit/", Route(Verb.SUBMIT, target="/")),
        ("GET", "/submit/a%2Fb/c/", Route(Verb.SUBMIT, target="/a%2Fb/c/")),
        ("GET", f"/{ID}/get", Route(Verb.STATUS, ID)),
        ("POST", f"/{ID}/get/", Route(Verb.STATUS, ID)),
        ("GET", f"/{ID}/status", Route(Verb.STATUS, ID)),
        ("GET", f"/requests/{ID}/status", Route(Verb.STATUS, ID)),
        ("GET", f"/requests/{ID}/status/", Route(Verb.STATUS, ID)),
        ("GET", f"/requests/{ID}/status/stream", Route(Verb.STREAM, ID)),
        ("HEAD", f"/requests/{ID}/status/stream/", Route(Verb.STREAM, ID)),
        ("GET", f"/{ID}/response", Route(Verb.RESPONSE, ID)),
        ("GET", f"/requests/{ID}/response", Route(Verb.RESPONSE, ID)),
        ("HEAD", f"/requests/{ID}/response/", Route(Verb.RESPONSE, ID)),
        ("PUT", f"/{ID}/cancel", Route(Verb.CANCEL, ID)),
        ("POST", f"/{ID}/cancel/", Route(Verb.CANCEL, ID)),
        ("PUT", f"/requests/{ID}/cancel", Route(Verb.CANCEL, ID)),
        ("GET", "/.well-known/jwks.json", Route(Verb.KEYS)),
        ("GET", "/.well-known/jwks.json/", Route(Verb.KEYS)),
        ("GET", "/openapi.json", Route(Verb.DOCUMENT)),
        ("GET", "/not-an-id/status", Route(Verb.STATUS, "not-an-id")),
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
def test_what_is_no_route(path: str) -> None:
    with pytest.raises(UnknownRoute):
        find_route("GET", path)


@pytest.mark.parametrize("verb", Verb)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_methods(verb: Verb, method: str) -> None:
    fixed = {Verb.SUBMIT: "/submit/x", Verb.KEYS: "/.well-known/jwks.json", Verb.DOCUMENT: "/openapi.json"}
    path = fixed.get(verb, f"/requests/{ID}/{verb}")
    if method in METHODS[verb] or (method == "HEAD" and METHODS[verb] == ("GET",)):
        assert find_route(method, path).verb is verb
    else:
        with pytest.raises(MethodNotAllowed) as refusal:
            find_route(method, path)
        assert refusal.value.headers == ((b"allow", ", ".join(METHODS[verb]).encode()),)


APP_ROUTES = [
    ("POST", "/o/a", Route(Verb.SUBMIT, target="/", app="/o/a")),
    ("POST", "/o/a/", Route(Verb.SUBMIT, target="/", app="/o/a")),
    ("GET", "/fal-ai/wan2.1/v2.2/text%2Fvideo/", Route(Verb.SUBMIT, target="/v2.2/text%2Fvideo/", app="/fal-ai/wan2.1")),
    ("POST", "/o/a//x", Route(Verb.SUBMIT, target="//x", app="/o/a")),
    ("POST", "/workflows/o/a", Route(Verb.SUBMIT, target="/", app="/workflows/o/a")),
    ("POST", "/comfy/o/a/b", Route(Verb.SUBMIT, target="/b", app="/comfy/o/a")),
    ("POST", "/123-demo", Route(Verb.SUBMIT, target="/", app="/123/demo")),
    ("POST", "/123-demo/", Route(Verb.SUBMIT, target="/", app="/123/demo")),
    ("POST", "/123-demo/x", Route(Verb.SUBMIT, target="/", app="/123-demo/x")),
    ("GET", f"/o/a/requests/{ID}", Route(Verb.RESPONSE, ID, app="/o/a")),
    ("HEAD", f"/o/a/requests/{ID}/", Route(Verb.RESPONSE, ID, app="/o/a")),
    ("GET", f"/o/a/requests/{ID}/response", Route(Verb.RESPONSE, ID, app="/o/a")),
    ("GET", f"/o/a/requests/{ID}/status", Route(Verb.STATUS, ID, app="/o/a")),
    ("GET", f"/o/a/requests/{ID}/status/", Route(Verb.STATUS, ID, app="/o/a")),
    ("PUT", f"/o/a/requests/{ID}/cancel", Route(Verb.CANCEL, ID, app="/o/a")),
    ("PUT", f"/comfy/o/a/requests/{ID}/cancel/", Route(Verb.CANCEL, ID, app="/comfy/o/a")),
    ("GET", f"/123-demo/requests/{ID}/status", Route(Verb.STATUS, ID, app="/123/demo")),
    ("GET", f"/o/a/v1/fast/requests/{ID}/response/", Route(Verb.RESPONSE, ID, app="/o/a")),
    ("GET", f"/o/a/v1/requests/{ID}", Route(Verb.RESPONSE, ID, app="/o/a")),
    ("PUT", f"/o/a/v1/requests/{ID}/cancel", Route(Verb.CANCEL, ID, app="/o/a")),
    # Directly behind the app a malformed id stays one; behind a path it is the application's own.
    ("GET", "/o/a/requests/not-an-id/status", Route(Verb.STATUS, "not-an-id", app="/o/a")),
    ("GET", "/o/a/requests//status", Route(Verb.STATUS, "", app="/o/a")),
    ("GET", "/o/a/v1/requests/not-an-id", Route(Verb.SUBMIT, target="/v1/requests/not-an-id", app="/o/a")),
    ("POST", f"/o/a/v1/requests/{ID}/approve", Route(Verb.SUBMIT, target=f"/v1/requests/{ID}/approve", app="/o/a")),
    ("POST", "/o/a/v1/requests", Route(Verb.SUBMIT, target="/v1/requests", app="/o/a")),
    ("POST", "/o/a/requests-list", Route(Verb.SUBMIT, target="/requests-list", app="/o/a")),
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
def test_what_is_no_route_of_an_app(path: str) -> None:
    with pytest.raises(UnknownRoute):
        find_host_route("GET", path)
    with pytest.raises(UnknownRoute):
        find_route("GET", f"/run{path}")


def test_a_path_of_many_words_costs_no_more_than_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Asked(dict[str, Verb]):
        def get(self, word: str, default: Verb | None = None) -> Verb | None:  # type: ignore[override]
            asked.append(word)
            return super().get(word, default)

    monkeypatch.setattr(routes, "OF_APP", Asked(routes.OF_APP))
    path = "/x" + "/requests" * 1000
    assert find_host_route("POST", f"/o/a{path}") == Route(Verb.SUBMIT, target=path, app="/o/a")
    assert len("".join(asked)) < 50 * 1000


def test_the_keys_are_at_the_root_of_a_host_too() -> None:
    assert find_host_route("GET", "/.well-known/jwks.json") == Route(Verb.KEYS)
    with pytest.raises(MethodNotAllowed):
        find_host_route("POST", "/.well-known/jwks.json")


@pytest.mark.parametrize(("method", "path"), [("POST", f"/o/a/requests/{ID}"), ("DELETE", f"/o/a/requests/{ID}/status")])
def test_methods_in_the_queue_form(method: str, path: str) -> None:
    with pytest.raises(MethodNotAllowed):
        find_host_route(method, path)
