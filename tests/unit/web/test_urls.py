from typing import Any

import pytest
from a2wsgi import WSGIMiddleware
from fastapi import FastAPI
from flask import Flask
from quart import Quart

from queue_middleware.errors import BadRequest
from queue_middleware.web import urls as module
from queue_middleware.web.urls import SplitPath, declared_root, host_of, is_at_host, is_ours, split_path


def scope(path: str, raw: bytes | None = None, root: str = "") -> dict[str, object]:
    return {"path": path, "root_path": root, **({} if raw is None else {"raw_path": raw})}


@pytest.mark.parametrize(
    ("path", "root", "ours"),
    [
        ("/fal/queue", "", True),
        ("/fal/queue/", "", True),
        ("/fal/queue/submit/x", "", True),
        ("/fal/queues", "", False),
        ("/fal", "", False),
        ("/x/fal/queue/y", "", False),
        ("/api/fal/queue/y", "/api", True),
        ("/api/fal/queued", "/api", False),
        ("/fal/queue/y", "/api", True),
        ("/fal/queue/fal/queue/y", "/fal/queue", True),
        ("/api//fal/queue/y", "/api/", True),
        ("/api/fal/queue/y", "/api/", True),
        ("/fal/queue/y", "/api/", True),
        ("/api/fal/queued", "/api/", False),
        # The root path looks like the prefix or its beginning: the path after it belongs to the application.
        ("/fal/queue/hello", "/fal/queue", False),
        ("/fal/queue", "/fal/queue", False),
        ("/fal/queue/", "/fal/queue", False),
        ("/fal/queue//hello", "/fal/queue/", False),
        ("/fal/queue/fal/queue", "/fal/queue", True),
        ("/fal/queue//fal/queue/y", "/fal/queue/", True),
        ("/fal/queue/y", "/fal", False),
        ("/fal/fal/queue/y", "/fal", True),
        ("/fal/queue/y", "/fa", True),
        ("//fal/queue/y", "/", True),
        ("/fal/queue/y", "/", True),
    ],
)
def test_paths_of_the_queue(path: str, root: str, ours: bool) -> None:
    assert is_ours(scope(path, root=root), "/fal/queue") is ours


@pytest.mark.parametrize(
    ("path", "root", "ours"),
    [("/fal/queue/y", "", True), ("/api/fal/queue/y", "", True), ("/api/hello", "", False), ("/x/fal/queue/y", "/x", True),
     ("/api/fal/queue/y", "/x", False)],
)  # fmt: skip
def test_the_applications_root_path_is_used_if_the_server_has_none(path: str, root: str, ours: bool) -> None:
    assert is_ours(scope(path, root=root), "/fal/queue", "/api") is ours


class Around:
    """Middleware around the application."""

    def __init__(self, app: Any) -> None:
        self.app = app


def test_the_root_path_of_a_fastapi() -> None:
    app = FastAPI()
    assert declared_root(app) == ""
    app.root_path = "/api"
    assert declared_root(app) == declared_root(Around(Around(app))) == "/api"


def test_a_root_path_that_is_a_folder_is_ignored() -> None:
    for app in (Flask("x"), Quart("x"), WSGIMiddleware(Flask("x")), Around(None), None, object()):
        assert declared_root(app) == ""
    endless = Around(None)
    endless.app = endless
    assert declared_root(endless) == ""


@pytest.mark.parametrize(
    ("path", "raw", "root", "address"),
    [
        ("/fal/queue/submit/a b", b"/fal/queue/submit/a%20b", "", SplitPath("", "/submit/a%20b")),
        ("/fal/queue/submit/a/b", b"/fal/queue/submit/a%2Fb", "", SplitPath("", "/submit/a%2Fb")),
        ("/fal/queue/submit/a", b"/%66al/queue/submit/a", "", SplitPath("", "/submit/a")),
        ("/fal/queue/submit/a", b"/fal/queue/submit/a?x=1", "", SplitPath("", "/submit/a")),
        ("/fal/queue/submit/\u00e9", None, "", SplitPath("", "/submit/%C3%A9")),
        ("/api/fal/queue/submit/a", b"/api/fal/queue/submit/a", "/api", SplitPath("/api", "/submit/a")),
        ("/caf\u00e9/fal/queue/x", b"/caf%C3%A9/fal/queue/x", "/caf\u00e9", SplitPath("/caf%C3%A9", "/x")),
        ("/fal/queue/submit/a", b"/fal/queue/submit/a", "/api", SplitPath("", "/submit/a")),
        ("/api//fal/queue/x", b"/api//fal/queue/x", "/api/", SplitPath("/api/", "/x")),
        ("/api/fal/queue/x", b"/api/fal/queue/x", "/api/", SplitPath("/api", "/x")),
        ("/o/a/b c", b"/o/a/b%20c", "", SplitPath("", "/o/a/b%20c", at_host=True)),
        ("/api/o/a", b"/api/o/a", "/api", SplitPath("/api", "/o/a", at_host=True)),
        ("/api//o/a", b"/api//o/a", "/api/", SplitPath("/api/", "/o/a", at_host=True)),
        ("/apis/o/a", b"/apis/o/a", "/api", SplitPath("", "/apis/o/a", at_host=True)),
        ("*", b"*", "", SplitPath("", "*", at_host=True)),
    ],
)
def test_splitting_a_path(path: str, raw: bytes | None, root: str, address: SplitPath) -> None:
    assert split_path(scope(path, raw, root), "/fal/queue") == address


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        (b"queue.example.com", True),
        (b"Queue.EXAMPLE.com", True),
        (b"queue.example.com.", True),
        (b"queue.example.com:8443", True),
        (b"queue.example.com.:8443", True),
        (b"example.com", False),
        (b"evil-queue.example.com", False),
        (b"queue.example.com.evil.net", False),
        (b"queue.example.com:8443@evil.net", False),
        (b"one.example.com:8001", True),
        (b"one.example.com:8002", False),
        (b"one.example.com", False),
        (b"[::1]:8000", True),
        (b"[::1]", True),
        (b"", False),
    ],
)
def test_hosts_of_the_queue(host: bytes, ours: bool) -> None:
    hosts = frozenset((b"queue.example.com", b"one.example.com:8001", b"[::1]"))
    assert is_at_host({"headers": [(b"accept", b"*/*"), (b"host", host)]}, hosts) is ours
    assert is_at_host({"headers": []}, hosts) is False


def scope_of(host: bytes, **more: Any) -> Any:
    return {"headers": [(b"accept", b"*/*"), (b"host", host)], "server": ("127.0.0.1", 8000), **more}


@pytest.mark.parametrize(
    "host",
    [b"a", b"web_1:8000", b"Queue.EXAMPLE.com.", b"[::1]:8000", b"[fe80::1%25eth0]", b"192.0.2.7:80", b"xn--bcher-kva.example",
     b"%2Frun%2Fapp.sock", b"a" * 253 + b":65535", b"a:"],
)  # fmt: skip
def test_a_host_is_returned_as_it_was_written(host: bytes) -> None:
    assert host_of(scope_of(host)) == host.decode()


def test_without_a_host_header_the_servers_address_is_used() -> None:
    assert host_of(scope_of(b"")) == "127.0.0.1:8000"
    assert host_of({"headers": [], "server": ("127.0.0.1", 8000)}) == "127.0.0.1:8000"


@pytest.mark.parametrize(
    "host",
    [b'"quote"', b"a b", b"{callback_url}", b"a/b", b"a?b", b"a#b", b"user@a", b"a\\b", b"b\xc3\xbccher.example", b"[::1",
     b"a:b", b"a:123456", b"a" * 301, b"a" * 10**6],
)  # fmt: skip
def test_an_invalid_host_is_refused(host: bytes) -> None:
    """It would be in URLs that others call, and could add placeholders to a callback URL."""
    before = module._read_host.cache_info().currsize, module._spellings.cache_info().currsize
    with pytest.raises(BadRequest, match="Host is not a host"):
        host_of(scope_of(host))
    assert (module._read_host.cache_info().currsize, module._spellings.cache_info().currsize) == before


def test_long_hosts_are_not_cached() -> None:
    before = module._spellings.cache_info().currsize
    assert is_at_host(scope_of(b"queue.example.com" + b"0" * 10**6), frozenset((b"queue.example.com",))) is False
    assert module._spellings.cache_info().currsize == before
