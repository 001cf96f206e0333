import pytest

from queue_middleware.asgi import headers as module
from queue_middleware.asgi.headers import declared_length, kept_headers, read_headers
from queue_middleware.jobs.models import Headers

HOST = (b"host", b"a")


@pytest.mark.parametrize(
    "name",
    [b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authorization", b"expect",
     b"content-length", b"accept-encoding", b"x-fal-request-id", b"x-fal-attempt", b"x_forwarded_for", b"bad name", b"",
     b"x-fal-stop-runner", b"x-fal-needs-retry", b"x-fal-error-type", b"x-fal-request-timeout-type", b"x-fal-billable-units",
     b"x-fal-served-from", b"x-fal-runner-hints"],
)  # fmt: skip
def test_headers_that_are_not_replayed(name: bytes) -> None:
    assert read_headers(((name, b"x"), HOST)).replayed == (HOST,)


@pytest.mark.parametrize(
    "name",
    [b"range", b"if-match", b"if-none-match", b"authorization", b"cookie", b"x-fal-queue-priority", b"x-fal-runner-hint"],
)
def test_headers_that_are_replayed(name: bytes) -> None:
    assert read_headers(((name, b"x"), HOST)).replayed == ((name, b"x"), HOST)


def test_what_the_queue_itself_reads() -> None:
    read = read_headers(((b"content-length", b"1"), (b"x-fal-a", b"b"), HOST, (b"content-length", b"x"), (b"x-fal-a", b"c")))
    assert read.lengths == (b"1", b"x")
    assert read.fal_headers == {b"x-fal-a": b"c"}
    assert not read.is_from_browser
    assert read_headers(((b"a_b", b"cd"), HOST)).text == b"a_bcdhosta"
    assert read_headers(((b"a_b", b"cd"), HOST)).size == 10 + 8


@pytest.mark.parametrize("name", [b"origin", b"sec-fetch-site"])
def test_headers_of_browsers(name: bytes) -> None:
    read = read_headers((HOST, (name, b"x")))
    assert read.is_from_browser
    assert read.replayed == (HOST, (name, b"x"))


def test_headers_that_are_replayed_and_read() -> None:
    pairs = ((b"idempotency-key", b"a"), (b"accept", b"*/*"), (b"idempotency-key", b"b"), (b"origin", b"https://x.test"))
    read = read_headers(pairs)
    assert read.replayed == pairs
    assert read.noted_values(b"idempotency-key") == [b"a", b"b"]
    assert read.is_from_browser
    alone = read_headers(pairs[:1])
    assert (alone.is_from_browser, alone.noted) == (False, pairs[:1])
    assert read_headers(pairs[1:2]).noted == ()
    assert "'a'" not in repr(read)


def test_a_request_with_many_names_does_not_fill_the_memory() -> None:
    for number in range(2000):
        read_headers(((b"x-%d" % number, b""),))
        assert len(module._treatments) <= 512


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"\x00"])
def test_values_with_line_breaks_are_refused(value: bytes) -> None:
    assert read_headers(((b"x-a", value), HOST)).replayed == (HOST,)
    with pytest.raises(ValueError, match="line break"):
        kept_headers([(b"x-a", value)])


def test_headers_named_by_connection_are_not_replayed() -> None:
    headers: Headers = ((b"connection", b"close, X-Private"), (b"x-private", b"1"), HOST)
    assert read_headers(headers).replayed == (HOST,)
    assert kept_headers(headers) == (HOST,)


def test_response_headers_keep_order_repetitions_and_bytes() -> None:
    headers = [
        (b"Set-Cookie", b"a"),
        (bytearray(b"X-A"), memoryview(b"\xff")),
        (b"set-cookie", b"b"),
        (b"Date", b"now"),
        (b"server", b"x"),
        (b"X-Fal-Stop-Runner", b"1"),
        (b"x-fal-needs-retry", b"0"),
    ]
    kept = ((b"set-cookie", b"a"), (b"x-a", b"\xff"), (b"set-cookie", b"b"), (b"x-fal-needs-retry", b"0"))
    assert kept_headers(headers) == kept


@pytest.mark.parametrize("header", [("x", b"y"), (b"x", "y"), (b"x", 2), (b"x", None)])
def test_response_headers_are_bytes(header: tuple[object, object]) -> None:
    with pytest.raises(TypeError):
        kept_headers([header])


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"\xff"])
def test_names_of_response_headers_are_tokens(name: bytes) -> None:
    with pytest.raises(ValueError, match="not a valid header name"):
        kept_headers([(name, b"")])


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"12", 12), (b"x", -1), (b"", -1), (b"-1", -1), (b"9" * 5000, -1)])
def test_declared_lengths(value: bytes, length: int) -> None:
    assert declared_length((HOST, (b"content-length", value))) == length
    assert declared_length((HOST,)) is None


def test_long_names_are_not_cached() -> None:
    """A server may accept a name of megabytes; hundreds of them would stay in memory."""
    long = b"x" * 5000
    before = len(module._treatments), len(module._kept_names)
    assert read_headers(((long, b"1"), (b"x-fal-" + long, b"2"), HOST)).replayed == (
        (long, b"1"),
        (b"x-fal-" + long, b"2"),
        HOST,
    )
    assert kept_headers([(long, b"1")]) == ((long, b"1"),)
    with pytest.raises(ValueError, match="not a valid header name"):
        kept_headers([(long + b" ", b"1")])
    after = len(module._treatments), len(module._kept_names)
    assert after[0] <= before[0] + 1  # HOST is one of them
    assert after[1] == before[1]
