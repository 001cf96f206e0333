import asyncio
import errno
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache

import h11
import pytest
import trustme

from queue_middleware.errors import OutboundError, OutboundRefused, OutboundShortage, OutboundUnreached
from queue_middleware.outbound import connector, pool
from queue_middleware.outbound.client import HTTPClient
from queue_middleware.outbound.connector import Origin
from queue_middleware.outbound.guard import Guard
from queue_middleware.outbound.http11 import MAX_BODY_PREFIX, Connection, StreamBody
from queue_middleware.outbound.http_head import Request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Who: me\r\n\r\nhi"
LOCAL = Guard(["127.0.0.1"])

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """A server on a free loopback port that sends the same bytes in response to every request."""

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


class FakeNetwork:
    """A fake network that accepts every connection and records the addresses."""

    def __init__(self, unreachable: tuple[str, ...] = ()) -> None:
        self.connected: list[tuple[str, int]] = []
        self.names: list[str | None] = []
        self.sent = b""
        self.unreachable = unreachable

    async def __call__(self, address: str, origin: Origin, context: ssl.SSLContext | None) -> Connection:
        self.connected.append((address, origin.port))
        if address in self.unreachable:
            raise OSError(errno.ENETUNREACH, "unreachable")
        self.names.append(origin.host if context else None)
        connection = Connection()
        connection.connection_made(_Transport(self, connection))
        return connection


class _Transport(asyncio.Transport):
    def __init__(self, wire: FakeNetwork, connection: Connection) -> None:
        super().__init__()
        self.wire, self.connection = wire, connection

    def write(self, data: bytes) -> None:
        self.wire.sent += data
        response = OK.replace(b"\r\nX-Who", b"\r\nConnection: close\r\nX-Who")
        asyncio.get_running_loop().call_soon(self.connection.data_received, response)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.connection.connection_lost(None)


class FakeResolver:
    """A resolver that returns or raises the given results in turn and repeats the last one."""

    def __init__(self, *results: list[str] | Exception) -> None:
        self.results = list(results)
        self.hosts: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.hosts.append((host, port))
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        return result


async def test_a_post_arrives_and_its_response_is_read():
    receiver = Receiver(OK)
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        response = await outbound.post(
            f"http://127.0.0.1:{port}/a%2fb?c=d#e", ((b"content-type", b"application/json"),), b'{"a": 1}'
        )
    assert (response.status, response.body) == (200, b"hi")
    assert (b"x-who", b"me") in response.headers
    lines = receiver.requests[0].split(b"\r\n")
    assert lines[0] == b"POST /a%2fb?c=d HTTP/1.1"
    assert b"host: 127.0.0.1:%d" % port in lines
    assert b"content-length: 8" in lines
    assert b"content-type: application/json" in lines
    assert lines[-1] == b'{"a": 1}'


async def test_connections_are_reused_for_the_same_host_and_port():
    receiver, names = Receiver(OK), FakeResolver(["127.0.0.1"])
    async with receiver.running() as port, HTTPClient(Guard(["hook.example"]), resolver=names) as outbound:
        for _ in range(3):
            await outbound.post(f"http://hook.example:{port}/", (), b"x")
    assert (len(receiver.requests), receiver.connections) == (3, 1)
    assert names.hosts == [("hook.example", port)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_returned_and_not_followed(status):
    receiver = Receiver(b"HTTP/1.1 %d Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n" % status)
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        assert (await outbound.post(f"http://127.0.0.1:{port}/", (), b"")).status == status
    assert len(receiver.requests) == 1


async def test_proxies_of_the_environment_are_not_read(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Receiver(OK).running() as port, HTTPClient(LOCAL) as outbound:
        assert (await outbound.post(f"http://127.0.0.1:{port}/", (), b"")).status == 200


async def test_a_long_response_is_truncated():
    closed = asyncio.Event()

    async def pour(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            closed.set()

    async with Receiver(pour).running() as port, HTTPClient(LOCAL) as outbound:
        response = await outbound.post(f"http://127.0.0.1:{port}/", (), b"")
        async with asyncio.timeout(5):
            await closed.wait()
    assert (response.status, len(response.body)) == (200, MAX_BODY_PREFIX)


async def test_a_status_is_used_if_the_body_never_ends():
    async def hang(reader, writer):
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\nabc")
        await reader.read()

    async with Receiver(hang).running() as port, HTTPClient(LOCAL, timeout=0.1) as outbound:
        response = await outbound.post(f"http://127.0.0.1:{port}/", (), b"")
    assert (response.status, response.body) == (201, b"abc")


async def test_a_status_is_used_if_the_body_is_incomplete():
    async def breaks(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    async with Receiver(breaks).running() as port, HTTPClient(LOCAL) as outbound:
        response = await outbound.post(f"http://127.0.0.1:{port}/", (), b"")
    assert (response.status, response.body) == (200, b"abc")


async def test_no_response_in_time():
    async def hang(reader, writer):
        await reader.read()

    async with Receiver(hang).running() as port, HTTPClient(LOCAL, timeout=0.1) as outbound:
        with pytest.raises(OutboundError, match=r"no response within 0\.1 s"):
            await outbound.post(f"http://127.0.0.1:{port}/", (), b"")


async def test_a_connection_that_breaks():
    async def leave(reader, writer):
        pass

    async with Receiver(leave).running() as port, HTTPClient(LOCAL) as outbound:
        with pytest.raises(OutboundError, match="without an HTTP response"):
            await outbound.post(f"http://127.0.0.1:{port}/", (), b"")


async def test_bytes_that_are_not_http_are_not_in_the_error():
    async with Receiver(b"+OK secret redis 7.2\r\n\r\n").running() as port, HTTPClient(LOCAL) as outbound:
        with pytest.raises(OutboundError, match="without an HTTP response") as caught:
            await outbound.post(f"http://127.0.0.1:{port}/", (), b"")
    assert "secret" not in caught.value.detail


async def test_a_refused_connection():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with HTTPClient(LOCAL) as outbound:
            with pytest.raises(OutboundError, match="no connection: Connection refused"):
                await outbound.post(f"http://127.0.0.1:{taken.getsockname()[1]}/", (), b"")


async def test_a_name_is_connected_to_by_its_checked_address():
    wire, names = FakeNetwork(), FakeResolver(["93.184.215.14"])
    async with HTTPClient(Guard(), resolver=names, connect=wire) as outbound:
        assert (await outbound.post("https://example.com/", (), b"")).status == 200
    assert names.hosts == [("example.com", 443)]
    assert wire.connected == [("93.184.215.14", 443)]
    assert wire.names == ["example.com"]
    assert b"host: example.com\r\n" in wire.sent


async def test_an_ipv6_literal_keeps_its_brackets_in_host():
    wire = FakeNetwork()
    async with HTTPClient(Guard(), connect=wire) as outbound:
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
    wire = FakeNetwork()
    async with HTTPClient(Guard(), resolver=FakeResolver(addresses), connect=wire) as outbound:
        with pytest.raises(OutboundRefused, match=r"example\.com has an address that is not public"):
            await outbound.post("https://example.com/", (), b"")
    assert wire.connected == []


async def test_rebinding_between_two_calls():
    wire, names = FakeNetwork(), FakeResolver(["93.184.215.14"], ["127.0.0.1"])
    async with HTTPClient(Guard(), resolver=names, connect=wire) as outbound:
        await outbound.post("https://example.com/", (), b"")
        with pytest.raises(OutboundRefused):
            await outbound.post("https://example.com/", (), b"")
    assert wire.connected == [("93.184.215.14", 443)]


async def test_the_next_address_is_tried():
    wire, names = FakeNetwork(unreachable=("2606:4700:4700::1111",)), FakeResolver(["2606:4700:4700::1111", "1.1.1.1"])
    async with HTTPClient(Guard(), resolver=names, connect=wire) as outbound:
        assert (await outbound.post("https://example.com/", (), b"")).status == 200
    assert [host for host, _ in wire.connected] == ["2606:4700:4700::1111", "1.1.1.1"]


@pytest.mark.parametrize("result", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long"), []])
async def test_a_name_that_cannot_be_resolved(result):
    async with HTTPClient(Guard(), resolver=FakeResolver(result), connect=FakeNetwork()) as outbound:
        with pytest.raises(OutboundError, match="cannot be resolved"):
            await outbound.post("https://example.com/", (), b"")


async def test_a_resolver_that_hangs():
    async def hang(host: str, port: int) -> list[str]:
        return await asyncio.Future()

    async with HTTPClient(Guard(), timeout=0.1, resolver=hang, connect=FakeNetwork()) as outbound:
        with pytest.raises(OutboundError, match=r"not resolved in time|no response within"):
            await outbound.post("https://example.com/", (), b"")


async def test_the_url_is_checked_again_before_each_call():
    names = FakeResolver(["93.184.215.14"])
    async with HTTPClient(Guard(), resolver=names, connect=FakeNetwork()) as outbound:
        for url in ("http://example.com/", "https://127.0.0.1/", "https://localhost/", "file:///etc/passwd"):
            with pytest.raises(OutboundRefused):
                await outbound.post(url, (), b"")
    assert names.hosts == []


async def test_a_closed_client_raises():
    outbound = HTTPClient(Guard())
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
        HTTPClient(guard, resolver=FakeResolver(["127.0.0.1"]), ssl_context=trusting) as outbound,
    ):
        assert (await outbound.post(f"https://receiver.example:{port}/", (), b"")).status == 200
        with pytest.raises(OutboundError, match=r"the certificate is not valid: Hostname mismatch"):
            await outbound.post(f"https://other.example:{port}/", (), b"")


async def test_without_a_context_the_public_authorities_are_trusted():
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("receiver.example").configure_cert(serving)
    async with (
        Receiver(OK).running(serving) as port,
        HTTPClient(Guard(["receiver.example"]), resolver=FakeResolver(["127.0.0.1"])) as outbound,
    ):
        with pytest.raises(OutboundError, match=r"the certificate is not valid: (self-signed|unable to get local issuer)"):
            await outbound.post(f"https://receiver.example:{port}/", (), b"")


async def test_the_certificate_authorities_are_loaded_once_and_on_first_use(monkeypatch):
    read: list[bool] = []

    def read_slowly(trust_env: bool) -> ssl.SSLContext:
        read.append(trust_env)
        together.wait(5)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    together = threading.Event()
    monkeypatch.setattr(connector.httpx, "create_ssl_context", read_slowly)
    monkeypatch.setattr(connector, "_public_authorities", cache(connector._public_authorities.__wrapped__))
    async with HTTPClient(Guard(["receiver.example"]), connect=FakeNetwork(), resolver=FakeResolver(["127.0.0.1"])) as outbound:
        await outbound.post("http://receiver.example/", (), b"")
        assert read == []
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(outbound.post(f"https://receiver.example:{8000 + number}/", (), b""))
            await asyncio.sleep(0)  # now all three wait in their threads
            together.set()
    async with HTTPClient(Guard(), connect=FakeNetwork(), resolver=FakeResolver(["93.184.215.14"])) as another:
        await another.post("https://example.com/", (), b"")
    assert read == [False]


async def test_unused_connections_are_closed(monkeypatch):
    monkeypatch.setattr(pool, "_IDLE_TIMEOUT", 0.01)
    receiver, gone = Receiver(OK), asyncio.Event()

    async def serve(reader, writer):
        writer.write(OK)
        await reader.read()
        gone.set()

    receiver.reply = serve
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        await outbound.post(f"http://127.0.0.1:{port}/", (), b"")
        async with asyncio.timeout(5):
            await gone.wait()


async def test_closing_leaves_no_task():
    receiver = Receiver(OK)
    async with receiver.running() as port:
        async with HTTPClient(LOCAL) as outbound:
            await outbound.post(f"http://127.0.0.1:{port}/", (), b"")
        assert [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()] == []


async def test_a_request_on_a_stale_connection_is_sent_again():
    """The peer may close a kept connection just when it is used again: it received nothing, so the request is sent again."""
    receiver = Receiver(OK)

    async def once(reader, writer):
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")  # the next request is read but receives no response

    receiver.reply = once
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        for _ in range(3):
            assert (await outbound.post(f"http://127.0.0.1:{port}/", (), b"x")).status == 200
    assert receiver.connections == 3


async def test_a_request_with_a_partial_response_is_not_sent_again():
    receiver = Receiver(OK)

    async def half(reader, writer):
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 2")

    receiver.reply = half
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        await outbound.post(f"http://127.0.0.1:{port}/", (), b"x")
        with pytest.raises(OutboundError, match="without an HTTP response"):
            await outbound.post(f"http://127.0.0.1:{port}/", (), b"x")
    assert receiver.connections == 1


async def test_a_connection_with_unexpected_bytes_is_not_used_again():
    receiver = Receiver(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        for _ in range(2):
            assert (await outbound.post(f"http://127.0.0.1:{port}/", (), b"x")).body == b"hi"
    assert receiver.connections == 2


async def test_early_hints_are_not_the_response():
    receiver = Receiver(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK)
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        assert (await outbound.post(f"http://127.0.0.1:{port}/", (), b"x")).status == 200


async def test_a_streamed_request_body():
    receiver = Receiver(OK)

    async def chunks():
        for _ in range(64):
            yield b"x" * 65536

    body = StreamBody(64 * 65536, chunks)
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        for _ in range(2):
            assert (await outbound.post(f"http://127.0.0.1:{port}/", (), body)).status == 200
    assert [len(request.partition(b"\r\n\r\n")[2]) for request in receiver.requests] == [body.length] * 2
    assert receiver.connections == 1


async def test_a_request_body_is_read_only_as_fast_as_it_is_sent():
    taken = 0
    served = asyncio.Event()

    async def hang(reader, writer):
        await served.wait()
        writer.close()

    async def chunks():
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"x" * 65536

    server = await asyncio.start_server(hang, "127.0.0.1", 0, limit=65536)
    port = server.sockets[0].getsockname()[1]
    async with HTTPClient(LOCAL, timeout=0.2) as outbound:
        with pytest.raises(OutboundError, match="no response within"):
            await outbound.post(f"http://127.0.0.1:{port}/", (), StreamBody(1000 * 65536, chunks))
    served.set()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.01)
    assert taken < 200  # what the system's buffers hold; the rest was not read


async def test_a_response_before_the_end_of_the_request_body_is_used():
    taken = 0
    served = asyncio.Event()

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await served.wait()
        writer.close()

    async def chunks():
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 65536
            await asyncio.sleep(0)

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=65536)
    port = server.sockets[0].getsockname()[1]
    async with HTTPClient(LOCAL) as outbound:
        response = await outbound.post(f"http://127.0.0.1:{port}/", (), StreamBody(10**9, chunks))
    served.set()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.01)
    assert response.status == 413


async def test_a_request_body_of_the_wrong_length_is_not_sent_completely():
    async def chunks():
        yield b"too long"

    async with Receiver(OK).running() as port, HTTPClient(LOCAL) as outbound:
        with pytest.raises(h11.LocalProtocolError):
            await outbound.post(f"http://127.0.0.1:{port}/", (), StreamBody(3, chunks))


async def test_headers_that_never_end():
    async def pour(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                writer.write(b"x: " + b"y" * 4096 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            pass

    async with Receiver(pour).running() as port, HTTPClient(LOCAL) as outbound:
        with pytest.raises(OutboundError, match="without an HTTP response"):
            await outbound.post(f"http://127.0.0.1:{port}/", (), b"")


async def test_a_cancelled_call_leaves_no_connection():
    gone = asyncio.Event()

    async def hang(reader, writer):
        await reader.read()
        gone.set()

    receiver = Receiver(hang)
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        call = asyncio.create_task(outbound.post(f"http://127.0.0.1:{port}/", (), b""))
        async with asyncio.timeout(5):
            while not receiver.requests:
                await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(5):
            await gone.wait()


@pytest.mark.parametrize("value", [b"a\r\nx-forged: 1", b"a\nb", b"a\x00b"])
async def test_a_header_cannot_be_smuggled(value):
    receiver = Receiver(OK)
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        with pytest.raises(h11.LocalProtocolError):
            await outbound.post(f"http://127.0.0.1:{port}/", ((b"x-name", value),), b"")
    assert receiver.requests == []


async def test_a_connection_closed_before_the_request_is_a_broken_connection():
    """With TLS the close may arrive with the handshake; it is a failure of the host and not of this process."""

    async def connect(address, origin, context):
        connection = Connection()
        transport = _Transport(FakeNetwork(), connection)
        connection.connection_made(transport)
        connection.eof_received()
        transport.is_closing = lambda: True
        return connection

    async with HTTPClient(LOCAL, connect=connect) as outbound:
        with pytest.raises(OutboundError, match="without an HTTP response"):
            await outbound.post("http://127.0.0.1:9/", (), b"x")


async def test_a_response_is_used_if_the_peer_reads_no_further():
    """The response arrives while the write buffer is full, and the buffer is never drained."""

    class Full(_Transport):
        def write(self, data: bytes) -> None:
            if connection._writable is None:
                connection.pause_writing()
                response = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
                asyncio.get_running_loop().call_soon(connection.data_received, response)

    connection = Connection()
    connection.connection_made(Full(FakeNetwork(), connection))

    async def chunks():
        while True:
            yield b"x" * 1024

    request = Request(b"POST", b"/", ((b"host", b"a"), (b"content-length", b"1000000000")))
    async with asyncio.timeout(2):
        status, _ = await connection.send(request, StreamBody(10**9, chunks))
    assert status == 410


@pytest.mark.parametrize(
    ("number", "address", "ours"),
    [
        (errno.EMFILE, "1.1.1.1", True),
        (errno.ENFILE, "1.1.1.1", True),
        (errno.ENOBUFS, "1.1.1.1", True),
        (errno.ENOMEM, "2606:4700:4700::1111", True),
        (errno.EADDRNOTAVAIL, "1.1.1.1", True),
        (errno.EADDRNOTAVAIL, "2606:4700:4700::1111", False),  # no IPv6 on this machine, a permanent condition
        (errno.ECONNREFUSED, "1.1.1.1", False),
        (errno.EHOSTUNREACH, "1.1.1.1", False),
    ],
)
async def test_a_local_shortage_is_not_a_failure_of_the_host(number, address, ours):
    async def fails(*_):
        raise OSError(number, "in words")

    reported = []

    def report(shortage, interval):
        reported.append((type(shortage), interval))

    async with HTTPClient(Guard(), resolver=FakeResolver([address]), connect=fails, on_shortage=report) as outbound:
        for _ in range(3):
            with pytest.raises(OutboundShortage if ours else OutboundUnreached):
                await outbound.post("https://example.com/", (), b"")
    assert reported == [(OutboundShortage, 30.0)] * ours, "it is reported once, not each time"


async def test_a_resolver_without_file_descriptors_is_a_local_shortage():
    resolver = FakeResolver(OSError(errno.EMFILE, "Too many open files"))
    async with HTTPClient(Guard(), resolver=resolver, connect=FakeNetwork()) as outbound:
        with pytest.raises(OutboundShortage):
            await outbound.post("https://example.com/", (), b"")


async def test_the_error_for_an_invalid_certificate_says_that_attempts_continue():
    async def distrusts(*_):
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        error.verify_message = "certificate has expired"
        raise error

    async with HTTPClient(Guard(), resolver=FakeResolver(["1.1.1.1"]), connect=distrusts) as outbound:
        with pytest.raises(OutboundUnreached, match="certificate has expired; attempts continue"):
            await outbound.post("https://example.com/", (), b"")


async def test_the_called_url_is_encoded_as_by_browsers():
    wire = FakeNetwork()
    async with HTTPClient(Guard(), resolver=FakeResolver(["1.1.1.1"]), connect=wire) as outbound:
        await outbound.post("https://example.com/two words?a=1&b=two words|^#x", (), b"")
    assert b"POST /two%20words?a=1&b=two%20words|^ HTTP/1.1\r\n" in wire.sent


async def test_a_reused_connection_is_read_again_after_a_large_response():
    body = b"x" * 300_000
    receiver = Receiver(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    async with receiver.running() as port, HTTPClient(LOCAL) as outbound:
        for _ in range(5):
            async with outbound.stream("POST", f"http://127.0.0.1:{port}/", (), b"{}", 3.0) as response:
                assert b"".join([chunk async for chunk in response.chunks]) == body
    assert receiver.connections == 1
