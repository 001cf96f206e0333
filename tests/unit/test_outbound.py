import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpcore
import pytest
import trustme

from queue_middleware.errors import OutboundError, OutboundRefused
from queue_middleware.guard import Guard
from queue_middleware.outbound import MAX_KEPT, Outbound, resolve

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Who: me\r\n\r\nhi"
LOCAL = Guard(["127.0.0.1"])

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """A server on a free loopback port that answers every request with the same bytes."""

    def __init__(self, reply: bytes | Reply) -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self.connections = 0

    @asynccontextmanager
    async def running(self, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                if not isinstance(self.reply, bytes):
                    return await self.reply(reader, writer)
                writer.write(self.reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Wire(httpcore.AsyncNetworkBackend):
    """A network that answers everything and notes who was connected to."""

    def __init__(self, unreachable: tuple[str, ...] = ()) -> None:
        self.connected: list[tuple[str, int]] = []
        self.names: list[str | None] = []
        self.sent = b""
        self.unreachable = unreachable

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.connected.append((host, port))
        if host in self.unreachable:
            raise httpcore.ConnectError("unreachable")
        return _Stream(self)


class _Stream(httpcore.AsyncMockStream):
    def __init__(self, wire: Wire) -> None:
        super().__init__([OK.replace(b"\r\nX-Who", b"\r\nConnection: close\r\nX-Who")])
        self.wire = wire

    async def start_tls(self, ssl_context, server_hostname=None, timeout=None):
        self.wire.names.append(server_hostname)
        return self

    async def write(self, buffer, timeout=None):
        self.wire.sent += buffer


class Names:
    """A resolver with an answer for each question in turn; the last one stays."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_post_arrives_and_its_answer_is_read():
    receiver = Receiver(OK)
    async with receiver.running() as port, Outbound(LOCAL) as outbound:
        answer = await outbound.post(
            f"http://127.0.0.1:{port}/a%2fb?c=d#e", ((b"content-type", b"application/json"),), b'{"a": 1}'
        )
    assert (answer.status, answer.body) == (200, b"hi")
    assert (b"x-who", b"me") in answer.headers
    lines = receiver.requests[0].split(b"\r\n")
    assert lines[0] == b"POST /a%2fb?c=d HTTP/1.1"
    assert b"host: 127.0.0.1:%d" % port in lines
    assert b"content-length: 8" in lines
    assert b"content-type: application/json" in lines
    assert lines[-1] == b'{"a": 1}'


async def test_connections_are_kept_for_the_same_place():
    receiver, names = Receiver(OK), Names(["127.0.0.1"])
    async with receiver.running() as port, Outbound(Guard(["hook.example"]), resolver=names) as outbound:
        for _ in range(3):
            await outbound.post(f"http://hook.example:{port}/", (), b"x")
    assert (len(receiver.requests), receiver.connections) == (3, 1)
    assert names.asked == [("hook.example", port)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer(status):
    receiver = Receiver(b"HTTP/1.1 %d Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n" % status)
    async with receiver.running() as port, Outbound(LOCAL) as outbound:
        assert (await outbound.post(f"http://127.0.0.1:{port}/", (), b"")).status == status
    assert len(receiver.requests) == 1


async def test_proxies_of_the_environment_are_not_read(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Receiver(OK).running() as port, Outbound(LOCAL) as outbound:
        assert (await outbound.post(f"http://127.0.0.1:{port}/", (), b"")).status == 200


async def test_a_long_answer_is_cut_off():
    closed = asyncio.Event()

    async def pour(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            closed.set()

    async with Receiver(pour).running() as port, Outbound(LOCAL) as outbound:
        answer = await outbound.post(f"http://127.0.0.1:{port}/", (), b"")
        async with asyncio.timeout(5):
            await closed.wait()
    assert (answer.status, len(answer.body)) == (200, MAX_KEPT)


async def test_a_status_counts_though_the_body_never_ends():
    async def hang(reader, writer):
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\nabc")
        await reader.read()

    async with Receiver(hang).running() as port, Outbound(LOCAL, timeout=0.1) as outbound:
        answer = await outbound.post(f"http://127.0.0.1:{port}/", (), b"")
    assert (answer.status, answer.body) == (201, b"abc")


async def test_a_status_counts_though_the_body_breaks_off():
    async def breaks(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    async with Receiver(breaks).running() as port, Outbound(LOCAL) as outbound:
        answer = await outbound.post(f"http://127.0.0.1:{port}/", (), b"")
    assert (answer.status, answer.body) == (200, b"abc")


async def test_no_answer_in_time():
    async def hang(reader, writer):
        await reader.read()

    async with Receiver(hang).running() as port, Outbound(LOCAL, timeout=0.1) as outbound:
        with pytest.raises(OutboundError, match=r"no answer within 0\.1 s"):
            await outbound.post(f"http://127.0.0.1:{port}/", (), b"")


async def test_a_connection_that_breaks():
    async def leave(reader, writer):
        pass

    async with Receiver(leave).running() as port, Outbound(LOCAL) as outbound:
        with pytest.raises(OutboundError, match="without an HTTP answer"):
            await outbound.post(f"http://127.0.0.1:{port}/", (), b"")


async def test_what_is_not_http_is_not_repeated():
    async with Receiver(b"+OK secret redis 7.2\r\n\r\n").running() as port, Outbound(LOCAL) as outbound:
        with pytest.raises(OutboundError, match="without an HTTP answer") as caught:
            await outbound.post(f"http://127.0.0.1:{port}/", (), b"")
    assert "secret" not in caught.value.detail


async def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with Outbound(LOCAL) as outbound:
            with pytest.raises(OutboundError, match="no connection: Connection refused"):
                await outbound.post(f"http://127.0.0.1:{taken.getsockname()[1]}/", (), b"")


async def test_a_good_name_is_connected_to_by_its_checked_address():
    wire, names = Wire(), Names(["93.184.215.14"])
    async with Outbound(Guard(), resolver=names, backend=wire) as outbound:
        assert (await outbound.post("https://example.com/", (), b"")).status == 200
    assert names.asked == [("example.com", 443)]
    assert wire.connected == [("93.184.215.14", 443)]
    assert wire.names == ["example.com"]
    assert b"host: example.com\r\n" in wire.sent


async def test_an_ipv6_literal_keeps_its_brackets_in_host():
    wire = Wire()
    async with Outbound(Guard(), resolver=resolve, backend=wire) as outbound:
        await outbound.post("https://[2606:4700:4700::1111]:8443/", (), b"")
    assert wire.connected == [("2606:4700:4700::1111", 8443)]
    assert b"host: [2606:4700:4700::1111]:8443\r\n" in wire.sent


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.215.14", "10.0.0.1"],
        ["2606:4700:4700::1111", "::1"],
        ["93.184.215.14", "::ffff:127.0.0.1"],
        ["fe80::1%2", "93.184.215.14"],
        ["169.254.169.254"],
    ],
)
async def test_one_bad_address_is_enough(addresses):
    wire = Wire()
    async with Outbound(Guard(), resolver=Names(addresses), backend=wire) as outbound:
        with pytest.raises(OutboundRefused, match=r"example\.com has an address that is not public"):
            await outbound.post("https://example.com/", (), b"")
    assert wire.connected == []


async def test_rebinding_between_two_calls():
    wire, names = Wire(), Names(["93.184.215.14"], ["127.0.0.1"])
    async with Outbound(Guard(), resolver=names, backend=wire) as outbound:
        await outbound.post("https://example.com/", (), b"")
        with pytest.raises(OutboundRefused):
            await outbound.post("https://example.com/", (), b"")
    assert wire.connected == [("93.184.215.14", 443)]


async def test_the_next_address_is_tried():
    wire, names = Wire(unreachable=("2606:4700:4700::1111",)), Names(["2606:4700:4700::1111", "1.1.1.1"])
    async with Outbound(Guard(), resolver=names, backend=wire) as outbound:
        assert (await outbound.post("https://example.com/", (), b"")).status == 200
    assert [host for host, _ in wire.connected] == ["2606:4700:4700::1111", "1.1.1.1"]


@pytest.mark.parametrize("answer", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long"), []])
async def test_a_name_without_an_address(answer):
    async with Outbound(Guard(), resolver=Names(answer), backend=Wire()) as outbound:
        with pytest.raises(OutboundError, match=r"cannot be (resolved|reached)"):
            await outbound.post("https://example.com/", (), b"")


async def test_a_resolver_that_hangs():
    async def hang(host: str, port: int) -> list[str]:
        return await asyncio.Future()

    async with Outbound(Guard(), timeout=0.1, resolver=hang, backend=Wire()) as outbound:
        with pytest.raises(OutboundError, match=r"not resolved in time|no answer within"):
            await outbound.post("https://example.com/", (), b"")


async def test_the_text_of_the_url_is_looked_at_again():
    names = Names(["93.184.215.14"])
    async with Outbound(Guard(), resolver=names, backend=Wire()) as outbound:
        for url in ("http://example.com/", "https://127.0.0.1/", "https://localhost/", "file:///etc/passwd"):
            with pytest.raises(OutboundRefused):
                await outbound.post(url, (), b"")
    assert names.asked == []


async def test_a_closed_client_says_so():
    outbound = Outbound(Guard())
    async with outbound:
        pass
    with pytest.raises(OutboundError, match="not open"):
        await outbound.post("https://example.com/", (), b"")


async def test_tls_checks_the_name_not_the_address():
    authority = trustme.CA()
    serving, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("receiver.example").configure_cert(serving)
    authority.configure_trust(trusting)
    guard = Guard(["receiver.example", "other.example"])
    async with (
        Receiver(OK).running(serving) as port,
        Outbound(guard, resolver=Names(["127.0.0.1"]), ssl_context=trusting) as outbound,
    ):
        assert (await outbound.post(f"https://receiver.example:{port}/", (), b"")).status == 200
        with pytest.raises(OutboundError, match=r"the certificate is not good: Hostname mismatch"):
            await outbound.post(f"https://other.example:{port}/", (), b"")
