import io
import json
from collections.abc import Iterator

import httpx
import pytest

from queue_middleware.cli import make_parser, submit
from queue_middleware.cli.exit_codes import CommandError, NothingMatched, Unreachable
from queue_middleware.cli.failures import report
from queue_middleware.cli.output import Terminal
from queue_middleware.cli.queue_client import PATIENCE, QueueClient, Submission, WaitIsOver

URL = "http://service.test/fal/queue"
REQUEST = "019a3c77-0000-7000-8000-000000000001"
OTHER = "019a3c77-0000-7000-8000-000000000002"


def status(state: str, **fields: object) -> dict[str, object]:
    return {"status": state, "request_id": REQUEST, "logs": [], "metrics": {}, **fields}


def entry(message: str, level: str = "INFO", **labels: str) -> dict[str, object]:
    return {"message": message, "level": level, "labels": {"level": level, **labels}}


DONE = status("COMPLETED", metrics={"inference_time": 8.94})


class Broken(httpx.SyncByteStream):
    """A stream that breaks after its events."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        raise httpx.ReadError("reset")


class Service:
    """A queue in the place of the network. `streams` has the events of each connection; a trailing None breaks it."""

    def __init__(self, *streams: list[dict[str, object] | None] | httpx.Response) -> None:
        self.streams = list(streams)
        self.requests: list[httpx.Request] = []
        self.response = httpx.Response(200, json={"ok": True})
        self.receipt = httpx.Response(200, json={"request_id": REQUEST, "status": "IN_QUEUE"})
        self.now = 1000.0
        self._event = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path.removeprefix("/fal/queue")
        if path.startswith("/submit/"):
            return self.receipt
        if path == f"/requests/{REQUEST}/response":
            self.response.headers["x-fal-request-id"] = REQUEST
            return self.response
        assert path == f"/requests/{REQUEST}/status/stream"
        if not self.streams:
            raise httpx.ConnectError("refused")
        return self._stream(self.streams.pop(0))

    def _stream(self, events: list[dict[str, object] | None] | httpx.Response) -> httpx.Response:
        if isinstance(events, httpx.Response):
            return events
        content = b""
        for event in events:
            self._event += 1
            content += b": ping\n\n" if event is None else f"data: {json.dumps(event)}\nid: {self._event}\n\n".encode()
        if events[-1] is None:
            return httpx.Response(200, stream=Broken(content))
        return httpx.Response(200, content=content)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def client(self, **headers: str) -> QueueClient:
        transport = httpx.MockTransport(self)
        return QueueClient(URL, headers, transport=transport, sleep=self.sleep, monotonic=lambda: self.now)


def run(service: Service, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command against this service."""
    monkeypatch.setattr(submit, "QueueClient", lambda url, headers: service.client(**headers))
    chosen = make_parser(["submit"]).parse_args(["submit", *arguments])
    return chosen.command(chosen, Terminal.of(chosen, lambda: 0.0))


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch, tmp_path):
    for name in ("QUEUE_URL", "QUEUE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


# --- the request


def test_the_call_is_sent_as_it_is_given(monkeypatch, capsys):
    service = Service()
    arguments = ["/generate?n=2", "-d", '{"a": 1}', "-H", "X-Fal-No-Retry: 1", "--key", "secret", "--idempotency-key", "k1"]
    webhook = ["--webhook", "http://receiver.test/a?b=c&d", "--webhook-events", "started,progress"]
    assert run(service, *arguments, *webhook, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr() == (f"{REQUEST}\n", "")
    (request,) = service.requests
    assert (request.method, request.read()) == ("POST", b'{"a": 1}')
    assert dict(request.url.params) == {
        "n": "2",
        "fal_webhook": "http://receiver.test/a?b=c&d",
        "fal_webhook_events": "started,progress",
    }
    sent = {name: request.headers[name] for name in ("authorization", "content-type", "idempotency-key", "x-fal-no-retry")}
    assert sent == {
        "authorization": "Key secret",
        "content-type": "application/json",
        "idempotency-key": "k1",
        "x-fal-no-retry": "1",
    }


def test_the_key_and_the_body_may_come_from_elsewhere(monkeypatch, tmp_path):
    service = Service()
    monkeypatch.setenv("QUEUE_API_KEY", "from-environment")
    (tmp_path / "body").write_bytes(b"\x00\x01")
    run(service, "generate", "-X", "PUT", "-d", "@body", "-H", "content-type: application/x", monkeypatch=monkeypatch)
    (request,) = service.requests
    assert (request.method, request.url.path, request.read()) == ("PUT", "/fal/queue/submit/generate", b"\x00\x01")
    assert request.headers["content-type"] == "application/x"
    assert request.headers["authorization"] == "Key from-environment"


def test_a_repeated_submission_is_named(monkeypatch, capsys):
    service = Service()
    service.receipt.headers["idempotency-replayed"] = "true"
    assert run(service, "/a", "--json", monkeypatch=monkeypatch) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["repeated"] is True
    assert "created by an earlier submission" in err


# --- waiting


def test_follow_prints_what_happens_and_the_response(monkeypatch, capfd):
    running = status("IN_PROGRESS", progress={"fraction": 0.4, "stage": "refine 12/30"})
    logs = [entry("started\nin two lines"), entry("40 %", progress="0.4"), entry("hot\x1b[31m", "WARN")]
    service = Service(
        [status("IN_QUEUE", queue_position=3), status("IN_PROGRESS"), {**running, "logs": logs}, running, DONE],
    )
    assert run(service, "/a", "--follow", monkeypatch=monkeypatch) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"ok": True}
    assert [line.removeprefix(f"{REQUEST}  ") for line in err.splitlines()] == [
        "in the queue, 3 in front",
        "running",
        "INFO  started",
        "INFO  in two lines",
        "WARN  hot\\x1b[31m",
        " 40 % refine 12/30",
        "completed in 8.9 s: 200, 11 B",
    ]


def test_wait_prints_only_the_end(monkeypatch, capfd):
    service = Service([status("IN_QUEUE", queue_position=0), DONE])
    assert run(service, "/a", "--wait", monkeypatch=monkeypatch) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"ok": True}
    assert err == f"{REQUEST}  completed in 8.9 s: 200, 11 B\n"


def test_a_failed_request_is_exit_status_4(monkeypatch, capfd):
    service = Service([status("COMPLETED", error="it took too long", error_type="request_timeout")])
    service.response = httpx.Response(504, json={"detail": "it took too long"})
    assert run(service, "/a", "--wait", monkeypatch=monkeypatch) == 4
    out, err = capfd.readouterr()
    assert json.loads(out) == {"detail": "it took too long"}
    assert "failed: it took too long" in err


def test_a_file_receives_the_response(monkeypatch, capfd, tmp_path):
    service = Service([DONE])
    service.response = httpx.Response(200, content=b"\x89PNG", headers={"content-type": "image/png"})
    assert run(service, "/a", "--wait", "-o", "picture.png", "--json", monkeypatch=monkeypatch) == 0
    assert (tmp_path / "picture.png").read_bytes() == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    document = json.loads(capfd.readouterr().out)
    assert document["output"] == "picture.png"
    assert (document["response_status"], document["response"], document["error"]) == (200, None, None)


@pytest.mark.parametrize("body", ["NaN", "1e999", r'"\ud800"', "[" * 100_000, "\ufeff[1]"])
def test_a_response_that_is_not_json_is_text_in_the_document(monkeypatch, capfd, body):
    service = Service([DONE])
    service.response = httpx.Response(200, content=body.encode(), headers={"content-type": "application/json"})
    run(service, "/a", "--wait", "--json", monkeypatch=monkeypatch)
    document = json.loads(capfd.readouterr().out, parse_constant=pytest.fail)
    assert document["response"] == body


def test_a_document_may_contain_half_of_a_surrogate_pair(monkeypatch):
    written = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stdout", written)
    service = Service([status("COMPLETED", error="\ud800", error_type="request_timeout")])
    assert run(service, "/a", "--wait", "--json", monkeypatch=monkeypatch) == 4
    written.seek(0)
    assert json.load(written)["error"] == "\ud800"


def test_a_terminal_shows_text_without_escape_sequences(monkeypatch, capfd):
    service = Service([DONE])
    service.response = httpx.Response(200, text="one\r\n\ttwo \x1b]0;title\x07", headers={"content-type": "text/plain"})
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert run(service, "/a", "--wait", monkeypatch=monkeypatch) == 0
    assert capfd.readouterr().out == "one\n        two \\x1b]0;title\\x07\n"


def test_a_document_contains_the_response(monkeypatch, capfd):
    assert run(Service([DONE]), "/a", "--wait", "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capfd.readouterr().out)["response"] == {"ok": True}


def test_a_file_that_cannot_be_written_leaves_the_response_to_be_fetched(monkeypatch, capfd):
    with pytest.raises(CommandError, match="cannot write missing/picture"):
        run(Service([DONE]), "/a", "--wait", "-o", "missing/picture", monkeypatch=monkeypatch)
    assert f"submit --attach {REQUEST} --wait --output missing/picture" in capfd.readouterr().err


def test_attach_submits_nothing(monkeypatch, capfd):
    service = Service([DONE])
    assert run(service, "--attach", REQUEST, monkeypatch=monkeypatch) == 0
    assert [request.method for request in service.requests] == ["GET", "GET"]


def test_ctrl_c_detaches(monkeypatch, capfd):
    service = Service([status("IN_QUEUE", queue_position=0), DONE])

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("queue_middleware.cli.progress_lines.ProgressLines.show", interrupt)
    assert run(service, "/a", "--follow", "--url", URL, monkeypatch=monkeypatch) == 130
    assert f"queue-middleware submit --attach {REQUEST} --follow --url {URL}" in capfd.readouterr().err


def test_a_wait_that_is_over(monkeypatch, capfd):
    service = Service([status("IN_QUEUE", queue_position=0)], [status("IN_QUEUE", queue_position=0)], *[[None]] * 20)
    assert run(service, "/a", "--wait", "3s", monkeypatch=monkeypatch) == 1
    assert "not completed within 3 s; the request continues" in capfd.readouterr().err
    assert service.now <= 1004


# --- reconnection


def test_a_stream_that_breaks_is_continued_after_the_last_event():
    service = Service([status("IN_QUEUE"), None], httpx.Response(503, json={"detail": "stopping"}), [DONE])
    states = [event["status"] for event in service.client().events(REQUEST, None)]
    assert states == ["IN_QUEUE", "COMPLETED"]
    ids = [request.headers.get("last-event-id") for request in service.requests]
    assert ids == [None, "1", "1"]


@pytest.mark.parametrize("data", [b"{", b"5", b'"text"', b"[" * 100_000])
def test_an_event_that_is_not_a_status_breaks_the_stream(data):
    service = Service(httpx.Response(200, content=b"data: " + data + b"\n\n"), [DONE])
    assert [event["status"] for event in service.client().events(REQUEST, None)] == ["COMPLETED"]


def test_a_header_may_contain_any_text():
    service = Service()
    service.client().submit(Submission("POST", "/a b", (("x-name", "Müller"),)))
    assert dict(service.requests[0].headers.raw)[b"x-name"] == "Müller".encode()
    assert service.requests[0].url.raw_path == b"/fal/queue/submit/a%20b"


def test_a_service_that_stays_away_is_given_up():
    service = Service([status("IN_QUEUE"), None])
    with pytest.raises(Unreachable, match="cannot be reached: refused"):
        list(service.client().events(REQUEST, None))
    assert PATIENCE < service.now - 1000 < PATIENCE + 10


def test_a_request_that_does_not_exist():
    service = Service(httpx.Response(404, json={"detail": "there is no request"}))
    with pytest.raises(NothingMatched, match="there is no request"):
        list(service.client().events(REQUEST, None))


def test_no_wait_is_endless_while_events_arrive():
    class Slow(Service):
        def _stream(self, events):
            self.now += 10
            return super()._stream(events)

    service = Slow(*[[status("IN_QUEUE")]] * 10)
    with pytest.raises(WaitIsOver):
        list(service.client().events(REQUEST, 25))


def test_no_message_shows_a_password(monkeypatch, capfd):
    url = "http://alice:s3cret@service.test/fal/queue"
    with pytest.raises(Unreachable) as error:
        QueueClient(url, {}, transport=httpx.MockTransport(_refuse)).submit(Submission("POST", "/a"))
    assert "service.test" in error.value.detail
    assert "s3cret" not in error.value.detail
    with pytest.raises(CommandError):
        run(Service([DONE]), "/a", "--wait", "-o", "missing/file", "--url", url, monkeypatch=monkeypatch)
    assert "s3cret" not in capfd.readouterr().err


def _refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


# --- refusals


@pytest.mark.parametrize(
    ("receipt", "kind", "reason"),
    [
        (httpx.Response(422, json={"detail": "another request has this key"}), CommandError, "422: another request"),
        (httpx.Response(503, json={"detail": "the queue is full"}), Unreachable, "503: the queue is full"),
        (httpx.Response(404, text="Not Found"), CommandError, "404: Not Found"),
        (httpx.Response(307, headers={"location": "http://other.test/"}), CommandError, "a redirect"),
        (httpx.Response(200, text="hello"), CommandError, "is not a queue"),
        (httpx.Response(200, json={"request_id": "\x1b[2J"}), CommandError, "is not a queue"),
        (httpx.Response(200, json={"request_id": "../../admin"}), CommandError, "is not a queue"),
    ],
)
def test_a_refused_submission(receipt, kind, reason):
    service = Service()
    service.receipt = receipt
    with pytest.raises(kind, match=reason):
        service.client().submit(Submission("POST", "/a"))


@pytest.mark.parametrize(("headers", "is_unknown"), [((), True), ((("Idempotency-Key", "k"),), False)])
def test_a_submission_without_a_response_may_have_been_stored(headers, is_unknown):
    service = Service()

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out")

    client = QueueClient(URL, {}, transport=httpx.MockTransport(fail), sleep=service.sleep)
    with pytest.raises(Unreachable) as error:
        client.submit(Submission("POST", "/a", headers))
    assert ("not known whether the request was stored" in error.value.detail) is is_unknown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "name the path"),
        (["/a", "--attach", REQUEST], "name the path"),
        (["--attach", "abc"], "not a UUID"),
        (["/a", "-o", "file"], "--output needs --wait"),
        (["/a", "--webhook", "receiver"], "--webhook needs a URL"),
        (["/a", "--url", "service"], "--url needs a URL"),
        (["/a#b"], "contains '#'"),
        (["/a\x00b"], "the path is not valid"),
        (["/a", "--key", "clé"], "characters that a header cannot have"),
    ],
)
def test_arguments_that_do_not_fit(arguments, reason, monkeypatch):
    with pytest.raises(CommandError, match=reason):
        run(Service(), *arguments, monkeypatch=monkeypatch)


def test_an_error_of_a_service_has_no_escape_sequences(capsys):
    assert report(CommandError("the service responded with 500: \x1b[2J\nqueue-middleware: all is well")) == 1
    assert capsys.readouterr().err == (
        "queue-middleware: the service responded with 500: \\x1b[2J\\nqueue-middleware: all is well\n"
    )


def test_a_header_is_a_name_and_a_value(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        run(Service(), "/a", "-H", "no-colon", monkeypatch=monkeypatch)
    assert "a header is written 'Name: value'" in capsys.readouterr().err
