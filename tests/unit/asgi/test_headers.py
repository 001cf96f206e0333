import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_middleware.asgi import headers as module
from queue_middleware.asgi.headers import declared_length, kept_headers, read_headers
from queue_middleware.asgi.proxy_headers import is_set_by_proxies
from queue_middleware.jobs.models import Headers

HOST = (b"host", b"a")


NOT_REPLAYED = (
    b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authorization", b"expect",
    b"proxy-authenticate", b"proxy-connection", b"content-length", b"accept-encoding", b"x-fal-request-id", b"x-fal-attempt",
    b"x-fal-stop-runner", b"x-fal-needs-retry", b"x-fal-error-type", b"x-fal-request-timeout-type", b"x-fal-billable-units",
    b"x-fal-served-from", b"x-fal-runner-hints",
)  # fmt: skip


@pytest.mark.parametrize("name", [*NOT_REPLAYED, b"x_forwarded_for", b"bad name", b""])
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


# --- the one pass of each function, compared with an expression for each of its results

NAMES = st.one_of(
    st.sampled_from(
        [*NOT_REPLAYED, b"host", b"origin", b"sec-fetch-site", b"x-fal-queue-priority", b"x-forwarded-for", b"x-a", b"x_a",
         b"a b", b"content-type", b"date", b"server"]
    ),
    st.binary(max_size=4).map(bytes.lower),
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([b"close", b"close, X-A", b"x-forwarded-for ,origin", b"content-length", b"x-fal-queue-priority", b"12"]),
    st.binary(max_size=6),
)
BLOCKS = st.lists(st.tuples(NAMES, VALUES), max_size=12).map(tuple)
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")


def named_by_connection(headers: Headers) -> set[bytes]:
    return {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}


def is_clean(value: bytes) -> bool:
    return not any(bad in value for bad in (b"\r", b"\n", b"\0"))


@given(BLOCKS)
@example(
    ((b"connection", b"x-a"), (b"connection", b"X-Forwarded-For"), (b"x-a", b""), (b"x-forwarded-for", b"1"), (b"te", b""))
)
def test_the_headers_of_a_submission_are_read_as_by_one_expression_for_each_result(headers: Headers) -> None:
    named = named_by_connection(headers)
    read = read_headers(headers)
    assert read.replayed == tuple(
        (name, value)
        for name, value in headers
        if name not in NOT_REPLAYED
        and b"_" not in name
        and TOKEN.fullmatch(name)
        and (name not in named or is_set_by_proxies(name))
        and is_clean(value)
    )
    assert read.fal_headers == {name: value for name, value in headers if name.startswith(b"x-fal-")}
    assert read.lengths == tuple(value for name, value in headers if name == b"content-length")
    assert read.is_from_browser == any(name in (b"origin", b"sec-fetch-site") for name, _ in headers)
    assert read.text == b"".join(name + value for name, value in headers)
    assert read.size == sum(len(name) + len(value) + 4 for name, value in headers)


NOT_KEPT = (*NOT_REPLAYED[:7], b"proxy-authenticate", b"proxy-connection", b"x-fal-stop-runner", b"date", b"server")


@given(BLOCKS.map(lambda block: tuple((name.title(), value) for name, value in block)))
def test_the_headers_of_a_response_are_kept_as_by_one_expression(headers: Headers) -> None:
    lower = tuple((name.lower(), value) for name, value in headers)
    if not all(TOKEN.fullmatch(name) and is_clean(value) for name, value in lower):
        with pytest.raises(ValueError, match="header"):
            kept_headers(headers)
    else:
        named = named_by_connection(lower)
        assert kept_headers(headers) == tuple(pair for pair in lower if pair[0] not in NOT_KEPT and pair[0] not in named)
