import asyncio
import json
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from queue_middleware.cli import main, make_parser
from queue_middleware.cli.incoming_webhooks import Arrival, IncomingWebhooks, Plan
from queue_middleware.cli.listen import _View
from queue_middleware.cli.loopback_server import LoopbackServer
from queue_middleware.cli.output import Terminal
from queue_middleware.cli.sample_webhook import Sample, build_sample
from queue_middleware.cli.trigger_key import key_set_of
from queue_middleware.cli.webhook_check import KeySource, WebhookChecker
from queue_middleware.webhooks.signing.keys import KeyPair
from tests.support.webhook_receiver import receiving

NOW = 1_700_000_000.0
REQUEST = "019a3c77-0000-7000-8000-000000000001"
PAIR = KeyPair.generate()


class Listening:
    """A server as `listen` starts it, and what it reported."""

    def __init__(self, statuses: tuple[int, ...] = (200,), delay: float = 0.0, forward_to: str | None = None) -> None:
        checker = WebhookChecker([KeySource.in_hand("own", key_set_of(PAIR))], clock=lambda: NOW)
        self.arrivals: list[Arrival] = []
        plan = Plan(statuses, delay, forward_to)
        incoming = IncomingWebhooks(checker, plan, key_set_of(PAIR), self.arrivals.append, lambda: NOW)
        self.server = LoopbackServer(incoming.handle)
        self.url = ""

    async def send(self, sample: Sample | None = None, *, body: bytes | None = None) -> httpx.Response:
        message = build_in_thread(sample or Sample("completed", REQUEST))
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.post(self.url, content=body or message.body, headers=list(message.headers))


def build_in_thread(sample: Sample):
    """`build_sample` runs an event loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(build_sample, sample, PAIR, [], lambda: NOW, sign=True).result()


@asynccontextmanager
async def listening(**plan) -> AsyncIterator[Listening]:
    listener = Listening(**plan)
    ports: list[int] = []
    ready = asyncio.Event()

    def on_ready(port: int) -> None:
        ports.append(port)
        ready.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(listener.server.run("127.0.0.1", 0, on_ready))
        with anyio.fail_after(20):
            await ready.wait()
        listener.url = f"http://127.0.0.1:{ports[0]}/done"
        yield listener
        listener.server.stop()


async def test_a_valid_webhook_is_accepted_and_described():
    async with listening() as listener:
        assert (await listener.send()).status_code == 200
    (arrival,) = listener.arrivals
    assert (arrival.request_id, arrival.webhook_id, arrival.kind) == (REQUEST, REQUEST, "completed")
    assert (arrival.valid, arrival.attempt, arrival.status, arrival.age, arrival.note) == (True, 1, 200, 0, "")
    assert arrival.signed_by == f"ed25519, key {PAIR.kid}"
    assert json.loads(arrival.body)["status"] == "OK"


async def test_the_statuses_are_those_of_the_attempts_of_each_webhook():
    async with listening(statuses=(500, 503, 200)) as listener:
        statuses = [(await listener.send()).status_code for _ in range(4)]
        other = await listener.send(Sample("started", REQUEST))
    assert statuses == [500, 503, 200, 200]
    assert other.status_code == 500
    assert [arrival.attempt for arrival in listener.arrivals] == [1, 2, 3, 4, 1]
    assert [arrival.note for arrival in listener.arrivals][:3] == ["by --answer", "by --answer", ""]


async def test_a_forged_webhook_is_refused_with_the_reason():
    async with listening(statuses=(200,)) as listener:
        response = await listener.send(body=b'{"forged": true}')
    assert response.status_code == 401
    assert "by none of" in response.text
    (arrival,) = listener.arrivals
    assert (arrival.valid, arrival.signed_by, arrival.age) == (False, "", None)
    assert any("none of the 1 public keys" in text for text in arrival.explanation)


async def test_a_forged_webhook_does_not_count_as_an_attempt():
    async with listening(statuses=(500, 200)) as listener:
        await listener.send(body=b'{"forged": true}')
        assert (await listener.send()).status_code == 500


async def test_a_webhook_is_forwarded_unchanged_and_its_response_returned():
    async with receiving(lambda webhook: 202) as receiver, listening(forward_to=f"{receiver.url}/hook?a=1") as listener:
        assert (await listener.send()).status_code == 202
        await listener.send(body=b'{"forged": true}')
    (webhook,) = receiver.webhooks_for(REQUEST)
    assert webhook.target == "/hook?a=1"
    assert webhook.body == listener.arrivals[0].body.encode()
    assert webhook.headers["webhook-id"] == REQUEST
    assert listener.arrivals[0].note == "forwarded"


async def test_headers_with_any_bytes_are_forwarded():
    async with receiving() as receiver, listening(forward_to=receiver.url) as listener:
        message = build_in_thread(Sample("completed", REQUEST))
        async with httpx.AsyncClient(trust_env=False) as client:
            sent = [*message.headers, (b"x-name", "Müller".encode("latin-1"))]
            assert (await client.post(listener.url, content=message.body, headers=sent)).status_code == 200
    assert receiver.webhooks_for(REQUEST)[0].headers["x-name"].encode("latin-1") == "Müller".encode("latin-1")


async def test_a_receiver_that_cannot_be_reached_makes_the_sender_try_again(free_port):
    async with listening(forward_to=f"http://127.0.0.1:{free_port}/") as listener:
        assert (await listener.send()).status_code == 502
    assert listener.arrivals[0].note.startswith("cannot forward it: ")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        (Sample("failed", REQUEST), "failed"),
        (Sample("completed", REQUEST, status=500), "failed"),
        (Sample("started", REQUEST), "started"),
        (Sample("progress", REQUEST), "progress 40 % sample"),
        (Sample("progress", REQUEST, b'{"fraction": 1.0}'), "progress 100 %"),
    ],
)
async def test_the_kind_is_read_from_the_body(sample, kind):
    async with listening() as listener:
        await listener.send(sample)
    assert listener.arrivals[0].kind == kind


async def test_the_key_set_of_samples_is_served():
    async with listening() as listener, httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(listener.url.replace("/done", "/.well-known/jwks.json"))
        assert response.content == key_set_of(PAIR)
        assert (await client.get(listener.url)).status_code == 405


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\n", b"\x16\x03\x01\x00", b"GET"])
async def test_what_is_not_http_ends_the_connection_only(sent):
    async with listening() as listener:
        port = httpx.URL(listener.url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write_eof()
        with anyio.fail_after(20):
            content = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert content[:12] in (b"", b"HTTP/1.1 400")
        assert (await listener.send()).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"type": "request.progress", "progress": {"fraction": 1' + b"0" * 400 + b"}}",
        b'{"type": "request.progress", "progress": {"fraction": NaN, "stage": ["\\ud800"]}}',
        b'{"type": "\\ud800"}',
        b'{"type": "' + b"x" * 100_000 + b'"}',
        b"[" * 100_000,
    ],
)
async def test_a_body_of_any_sender_is_described(body):
    async with listening() as listener:
        assert (await listener.send(body=body)).status_code == 401
    (arrival,) = listener.arrivals
    assert 0 < len(arrival.kind.encode()) <= 100


async def test_head_is_refused_without_a_body():
    async with listening() as listener, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.head(listener.url)).status_code == 405


async def test_an_error_of_the_command_ends_the_server():
    """Such as that of a standard output that is closed: no more webhooks can be shown."""

    async def fail(received):
        raise BrokenPipeError

    server, ports = LoopbackServer(fail), asyncio.Queue()
    running = asyncio.create_task(server.run("127.0.0.1", 0, ports.put_nowait))
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.post(f"http://127.0.0.1:{await ports.get()}/")).status_code == 500
    with pytest.raises(BrokenPipeError), anyio.fail_after(20):
        await running


def test_a_closed_standard_output_is_not_reported_as_a_port(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    async def fail(*arguments):
        raise BrokenPipeError

    monkeypatch.setattr(LoopbackServer, "run", fail)
    chosen = make_parser(["listen"]).parse_args(["listen"])
    with pytest.raises(BrokenPipeError):
        chosen.command(chosen, Terminal.of(chosen, lambda: NOW))


class Gate:
    """Delays the responses of a server until `release` is set."""

    def __init__(self, server: LoopbackServer) -> None:
        self._handle = server._handler
        self.arrived, self.release = asyncio.Event(), asyncio.Event()
        server._handler = self

    async def __call__(self, received):
        self.arrived.set()
        await self.release.wait()
        return await self._handle(received)


async def test_responses_are_sent_before_the_end():
    async with listening() as listener:
        gate = Gate(listener.server)
        sending = asyncio.create_task(listener.send())
        with anyio.fail_after(20):
            await gate.arrived.wait()
        listener.server.stop()
        gate.release.set()
        assert (await sending).status_code == 200


async def test_a_connection_without_a_request_is_not_waited_for():
    async with listening() as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(listener.url).port)
        await listener.send()  # the server has accepted the first connection before this one
        listener.server.stop()
        with anyio.fail_after(4):  # less than the time that responses get
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_a_second_signal_ends_responses_at_once():
    async with listening() as listener:
        gate = Gate(listener.server)
        sending = asyncio.create_task(listener.send())
        with anyio.fail_after(20):
            await gate.arrived.wait()
        listener.server.stop()
        listener.server.stop()
        with pytest.raises(httpx.HTTPError):
            await sending


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--port", "70000"], "not a port"),
        (["--answer", "500,ok"], "not a list of statuses"),
        (["--answer", "100"], "not a list of statuses"),
        (["--delay", "soon"], "not a duration"),
    ],
)
def test_arguments_that_are_not_valid(arguments, reason, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["listen", *arguments])
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_port_that_is_taken_is_reported(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["listen", "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


def test_json_of_a_webhook_does_not_control_the_terminal(capsys):
    view = _View(Terminal(lambda: NOW, json=True), show_body=True)
    view.show(Arrival(0, REQUEST, REQUEST, "completed", 1, 401, "", False, "", "", None, [], body="\x7f\x9b2J"))
    printed = capsys.readouterr().out
    assert printed.rstrip("\n").isprintable()
    assert json.loads(printed)["body"] == "\x7f\x9b2J"


@pytest.mark.parametrize(
    ("host", "hint", "others"),
    [
        ("127.0.0.1", 'http://127.0.0.1:8787/   (the service needs outbound_allow="127.0.0.1")', False),
        ("::1", 'http://[::1]:8787/   (the service needs outbound_allow="::1")', False),
        ("0.0.0.0", "(the service needs outbound_allow with an address of this machine)", True),
    ],
)
def test_the_first_line_names_what_the_service_needs(host, hint, others, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    async def listen(self, host, port, ready):
        ready(port)

    monkeypatch.setattr(LoopbackServer, "run", listen)
    assert main(["listen", "--host", host]) == 0
    printed = capsys.readouterr().err
    assert hint in printed
    assert ("other machines can reach this address" in printed) is others
