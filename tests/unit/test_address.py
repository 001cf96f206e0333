import pytest

from queue_middleware.web.address import Address, is_at_host, is_ours, split_address


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
    ],
)
def test_what_is_ours(path: str, root: str, ours: bool) -> None:
    assert is_ours(scope(path, root=root), "/fal/queue") is ours


@pytest.mark.parametrize(
    ("path", "raw", "root", "address"),
    [
        ("/fal/queue/submit/a b", b"/fal/queue/submit/a%20b", "", Address("", "/submit/a%20b")),
        ("/fal/queue/submit/a/b", b"/fal/queue/submit/a%2Fb", "", Address("", "/submit/a%2Fb")),
        ("/fal/queue/submit/a", b"/%66al/queue/submit/a", "", Address("", "/submit/a")),
        ("/fal/queue/submit/a", b"/fal/queue/submit/a?x=1", "", Address("", "/submit/a")),
        ("/fal/queue/submit/\u00e9", None, "", Address("", "/submit/%C3%A9")),
        ("/api/fal/queue/submit/a", b"/api/fal/queue/submit/a", "/api", Address("/api", "/submit/a")),
        ("/caf\u00e9/fal/queue/x", b"/caf%C3%A9/fal/queue/x", "/caf\u00e9", Address("/caf%C3%A9", "/x")),
        ("/fal/queue/submit/a", b"/fal/queue/submit/a", "/api", Address("", "/submit/a")),
        ("/api//fal/queue/x", b"/api//fal/queue/x", "/api/", Address("/api/", "/x")),
        ("/api/fal/queue/x", b"/api/fal/queue/x", "/api/", Address("/api", "/x")),
        ("/o/a/b c", b"/o/a/b%20c", "", Address("", "/o/a/b%20c", at_host=True)),
        ("/api/o/a", b"/api/o/a", "/api", Address("/api", "/o/a", at_host=True)),
        ("/api//o/a", b"/api//o/a", "/api/", Address("/api/", "/o/a", at_host=True)),
        ("/apis/o/a", b"/apis/o/a", "/api", Address("", "/apis/o/a", at_host=True)),
        ("*", b"*", "", Address("", "*", at_host=True)),
    ],
)
def test_taking_apart(path: str, raw: bytes | None, root: str, address: Address) -> None:
    assert split_address(scope(path, raw, root), "/fal/queue") == address


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
def test_hosts_that_are_ours(host: bytes, ours: bool) -> None:
    hosts = frozenset((b"queue.example.com", b"one.example.com:8001", b"[::1]"))
    assert is_at_host({"headers": [(b"accept", b"*/*"), (b"host", host)]}, hosts) is ours
    assert is_at_host({"headers": []}, hosts) is False
