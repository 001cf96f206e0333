"""Which path of fal's queue means what."""

import pytest

from queue_middleware.errors import MethodNotAllowed, UnknownRoute
from queue_middleware.wire.routes import METHODS, Route, Verb, find_route

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
        ("GET", f"/{ID}/response", Route(Verb.RESPONSE, ID)),
        ("GET", f"/requests/{ID}/response", Route(Verb.RESPONSE, ID)),
        ("HEAD", f"/requests/{ID}/response/", Route(Verb.RESPONSE, ID)),
        ("PUT", f"/{ID}/cancel", Route(Verb.CANCEL, ID)),
        ("POST", f"/{ID}/cancel/", Route(Verb.CANCEL, ID)),
        ("PUT", f"/requests/{ID}/cancel", Route(Verb.CANCEL, ID)),
        ("GET", "/.well-known/jwks.json", Route(Verb.KEYS)),
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
        f"/{ID}/status//",
        f"/x/requests/{ID}/status",
        f"/requests/{ID}/status/x",
    ],
)
def test_what_is_no_route(path: str) -> None:
    with pytest.raises(UnknownRoute):
        find_route("GET", path)


@pytest.mark.parametrize("verb", Verb)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_methods(verb: Verb, method: str) -> None:
    path = {Verb.SUBMIT: "/submit/x", Verb.KEYS: "/.well-known/jwks.json"}.get(verb, f"/requests/{ID}/{verb}")
    if method in METHODS[verb] or (method == "HEAD" and verb in (Verb.RESPONSE, Verb.KEYS)):
        assert find_route(method, path).verb is verb
    else:
        with pytest.raises(MethodNotAllowed) as refusal:
            find_route(method, path)
        assert refusal.value.headers == ((b"allow", ", ".join(METHODS[verb]).encode()),)
