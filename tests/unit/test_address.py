import pytest

from queue_middleware.web.address import Address, is_ours, split_address


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
    ],
)
def test_taking_apart(path: str, raw: bytes | None, root: str, address: Address) -> None:
    assert split_address(scope(path, raw, root), "/fal/queue") == address
