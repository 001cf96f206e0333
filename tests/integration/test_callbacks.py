"""Callback URLs in plain submissions and in handlers, against the whole middleware."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest

from queue_middleware import current_job
from queue_middleware.errors import StoreBusy
from queue_middleware.stores.common.task_store import CommonTaskStore
from tests.support.queue_client import Queue, client_of, eventually, serving, stored_jobs
from tests.support.raw_asgi import Message, Receive, Send, http_only, respond
from tests.support.webhook_receiver import receiving

URL = re.compile(r"http://service\.test/fal/queue/v1/callbacks/([0-9a-f]{64})")


class Starter:
    """An application that starts work for an external service, and records its calls."""

    def __init__(self, status: int = 202, body: bytes = b'{"started": true}') -> None:
        self.calls: list[dict[str, Any]] = []
        self.status = status
        self.body = body

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        self.calls.append({**scope, "body": body})
        await respond(send, self.body, self.status)

    async def called(self) -> dict[str, Any]:
        await eventually(lambda: self.calls)
        return self.calls[-1]


@pytest.fixture
def short_second_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test of an unknown id waits for the second lookup."""
    monkeypatch.setattr("queue_middleware.tasks.callbacks._SECOND_LOOKUP_DELAY", 0.01)


def path_in(text: str | bytes) -> str:
    """The path of the callback URL in a text."""
    found = URL.search(text if isinstance(text, str) else text.decode())
    assert found, text
    return f"/fal/queue/v1/callbacks/{found[1]}"


async def begun(queue: Queue, starter: Starter) -> tuple[str, str]:
    """A request that an external service works on: its id, and the path of its callback URL."""
    request_id = await queue.submit("POST", "/start", content="{callback_url}")
    return request_id, path_in((await starter.called())["body"])


async def call_back(queue: Queue, path: str, payload: Any = None, status: int = 200, **request: Any) -> dict[str, Any]:
    received = await queue.client.post(path, **(request or {"json": payload or {"status": "OK"}}))
    assert received.status_code == status, received.text
    return received.json()


# --- positions of the placeholder


async def test_in_a_json_body(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        request_id = await queue.submit("POST", "/start", json={"webhook": "{callback_url}", "prompt": 'a "cat"'})
        call = await starter.called()
        given = json.loads(call["body"])
        assert dict(call["headers"])[b"content-length"] == b"%d" % len(call["body"])
        assert given["prompt"] == 'a "cat"'
        assert (await queue.status(request_id))["status"] == "IN_PROGRESS"
        assert await call_back(queue, path_in(given["webhook"]), {"images": ["cat.png"]}) == {"ok": True}
        result = await queue.response(request_id)
    assert (result.status_code, result.json()) == (200, {"images": ["cat.png"]})


@pytest.mark.parametrize(
    "placeholder", ["{callback_url}", "{asyncqueue_callback_url}", "%7Bcallback_url%7D", "%7basyncqueue_callback_url%7d"]
)
async def test_in_a_query(database: Path, placeholder: str) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        await queue.submit("POST", f"/start?a=1&hook={placeholder}&b=%2F")
        query = (await starter.called())["query_string"].decode()
        assert query.startswith("a=1&hook=http%3A%2F%2Fservice.test%2F")
        assert query.endswith("&b=%2F")
        await call_back(queue, path_in(parse_qs(query)["hook"][0]))


async def test_in_a_path(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        await queue.submit("GET", "/start/%7Bcallback_url%7D/end")
        call = await starter.called()
        assert call["raw_path"].startswith(b"/start/http%3A%2F%2F")
        assert call["path"] == unquote(call["raw_path"].decode())
        await call_back(queue, path_in(call["path"]))


async def test_in_a_header(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        await queue.submit("POST", "/start", headers={"x-webhook": "url={callback_url}; v=1"})
        value = dict((await starter.called())["headers"])[b"x-webhook"].decode()
        assert value == f"url=http://service.test{path_in(value)}; v=1"
        await call_back(queue, path_in(value))


async def test_in_a_form(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        await queue.submit("POST", "/start", data={"hook": "{callback_url}", "a": "1"})
        body = (await starter.called())["body"].decode()
        await call_back(queue, path_in(parse_qs(body)["hook"][0]))


async def test_all_placeholders_hold_the_same_url(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        body = {"webhook": "{callback_url}", "again": ["{asyncqueue_callback_url}"]}
        await queue.submit("POST", "/start?hook={callback_url}", json=body)
        call = await starter.called()
    given = json.loads(call["body"])
    assert given["webhook"] == given["again"][0] == parse_qs(call["query_string"].decode())["hook"][0]


@pytest.mark.parametrize("text", ["callback_url", "{callback_url", "{my_callback_url}", "{ callback_url }"])
async def test_similar_text_is_kept_and_the_request_does_not_wait(database: Path, text: str) -> None:
    starter = Starter(200)
    async with serving(http_only(starter), database) as queue:
        result = await queue.run("POST", "/start", json={"text": text}, headers={"x-text": text})
    assert result.status_code == 200
    assert json.loads(starter.calls[0]["body"])["text"] == text


async def test_below_a_public_url(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database, public_url="https://api.example.com/base") as queue:
        await queue.submit("POST", "/start", content="{callback_url}")
        body = (await starter.called())["body"].decode()
        assert body.startswith("https://api.example.com/base/fal/queue/v1/callbacks/")
        await call_back(queue, body.removeprefix("https://api.example.com/base"))


@pytest.mark.usefixtures("at_once")
async def test_every_attempt_receives_the_same_url(database: Path) -> None:
    starter = Starter(503)
    async with serving(http_only(starter), database) as queue:
        await queue.submit("POST", "/start", content="{callback_url}")
        await eventually(lambda: len(starter.calls) >= 2)
        starter.status = 202
    first, second, *_ = (call["body"] for call in starter.calls)
    assert first == second


# --- handlers that ask for it


async def test_a_handler_that_asks_and_responds_with_202(database: Path) -> None:
    urls: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        urls.extend([current_job.callback_url or "", current_job.callback_url or ""])
        await respond(send, b"", 202)

    async with serving(http_only(app), database, outbound_allow="127.0.0.1") as queue, receiving() as receiver:
        request_id = await queue.submit("POST", f"/start?fal_webhook={receiver.url}/done")
        await eventually(lambda: urls)
        assert urls[0] == urls[1]
        assert (await queue.status(request_id))["status"] == "IN_PROGRESS"
        await call_back(queue, path_in(urls[0]), {"picture": 7})
        assert (await queue.response(request_id)).json() == {"picture": 7}
        await eventually(lambda: receiver.webhooks_for(request_id))
    assert receiver.webhooks_for(request_id)[0].content["payload"] == {"picture": 7}


async def test_the_submitters_timeout_applies_if_the_handler_asks(database: Path) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert current_job.callback_url
        await respond(send, b"", 202)

    async with serving(http_only(app), database) as queue:
        late = await queue.response(await queue.submit("POST", "/start?fal_callback_timeout=0.2"))
        assert (late.status_code, late.json()["detail"]) == (504, "the external service sent no result in time")
        second = await queue.submit("POST", "/start")
        assert (await queue.status(second))["status"] == "IN_PROGRESS"


async def test_a_callback_timeout_without_a_callback_is_ignored(database: Path) -> None:
    async with serving(http_only(lambda scope, receive, send: respond(send, b"done", 202)), database) as queue:
        response = await queue.run("POST", "/start?fal_callback_timeout=0.2")
        assert (response.status_code, response.text) == (202, "done")


async def test_the_last_progress_report_is_shown_while_it_waits(database: Path) -> None:
    """The handler has returned before its reports are written periodically."""
    urls: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        current_job.report_progress(0.5, "the provider renders")
        urls.append(current_job.callback_url or "")
        await respond(send, b"", 202)

    async with serving(http_only(app), database) as queue:
        request_id = await queue.submit("POST", "/start")
        await eventually(lambda: stored_jobs(database, "state = 'awaiting'"))
        status = await queue.status(request_id)
        assert "the provider renders" in json.dumps(status)
        await call_back(queue, path_in(urls[0]))


async def test_a_handler_asks_from_a_thread(database: Path) -> None:
    urls: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await asyncio.to_thread(lambda: urls.append(current_job.callback_url or ""))
        await respond(send, b"", 202)

    async with serving(http_only(app), database) as queue:
        request_id = await queue.submit("POST", "/start")
        await eventually(lambda: urls)
        await call_back(queue, path_in(urls[0]))
        assert (await queue.response(request_id)).status_code == 200


async def test_a_handler_that_asks_and_responds_with_an_error_does_not_wait(database: Path) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert current_job.callback_url
        await respond(send, b"no", 422)

    async with serving(http_only(app), database) as queue:
        assert (await queue.run("POST", "/start")).status_code == 422


@pytest.mark.usefixtures("at_once")
async def test_a_second_attempt_that_asks_receives_the_same_url(database: Path) -> None:
    urls: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        urls.append(current_job.callback_url or "")
        await respond(send, b"", 503 if len(urls) == 1 else 202)

    async with serving(http_only(app), database) as queue:
        request_id = await queue.submit("POST", "/start")
        await eventually(lambda: len(urls) == 2)
        assert urls[0] == urls[1]
        await call_back(queue, path_in(urls[0]))
        assert (await queue.response(request_id)).status_code == 200


async def test_a_callback_ends_a_job_whose_attempt_failed_after_asking(database: Path) -> None:
    urls: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        urls.append(current_job.callback_url or "")
        await respond(send, b"", 503, [(b"retry-after", b"3600")])

    async with serving(http_only(app), database) as queue:
        request_id = await queue.submit("POST", "/start")
        await queue.reaches(request_id, "IN_QUEUE")
        await eventually(lambda: urls)
        await eventually(lambda: _state(database) == "delayed")
        await call_back(queue, path_in(urls[0]), {"late": True})
        assert (await queue.response(request_id)).json() == {"late": True}
    assert len(urls) == 1


async def test_an_attempt_ends_only_after_its_callback_url_is_stored(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even during an outage of the database: an external service may already have the URL."""
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.05)
    urls: list[str] = []
    refusals = [StoreBusy("busy", 1)]
    expect = CommonTaskStore.register_callback

    async def refused(error: StoreBusy) -> bool:
        raise error

    def busy(self: CommonTaskStore, *arguments: Any) -> Any:
        return refused(refusals.pop()) if refusals else expect(self, *arguments)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        urls.append(current_job.callback_url or "")
        await respond(send, b"", 503, [(b"retry-after", b"3600")])

    monkeypatch.setattr(CommonTaskStore, "register_callback", busy)
    async with serving(http_only(app), database) as queue:
        request_id = await queue.submit("POST", "/start")
        await eventually(lambda: _state(database) == "delayed")
        assert not refusals
        await call_back(queue, path_in(urls[0]), {"late": True})
        assert (await queue.response(request_id)).json() == {"late": True}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_cannot_ask(database: Path) -> None:
    """The queue would not know of the URL, and the callback would find no awaiting job."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writing, str(current_job.callback_url).encode())
            except RuntimeError as error:
                os.write(writing, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        received = os.read(reading, 1000)
        os.close(reading)
        os.close(writing)
        await respond(send, received)

    async with serving(http_only(app), database) as queue:
        assert "was forked" in (await queue.run("POST", "/start")).text


def _state(database: Path) -> str:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT state FROM job").fetchone()[0]


async def test_asking_after_the_response_is_an_error(database: Path) -> None:
    received: list[str] = []
    ended = threading.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await respond(send)
        try:
            assert current_job.callback_url is None
        except RuntimeError as error:
            received.append(str(error))
        ended.set()

    async with serving(http_only(app), database) as queue:
        await queue.run("POST", "/start")
        await eventually(ended.is_set)
    assert "read callback_url before sending it" in received[0]


async def test_there_is_no_url_outside_a_replay() -> None:
    assert current_job.callback_url is None


# --- arrival of the callback


async def test_it_arrives_before_the_response(database: Path) -> None:
    """docs/reference/protocols/asyncqueue.md, "Extensions", 1."""
    may_respond = asyncio.Event()
    bodies: list[bytes] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        bodies.append((await receive())["body"])
        await may_respond.wait()
        await respond(send, b"", 202)

    async with serving(http_only(app), database) as queue:
        request_id = await queue.submit("POST", "/start", content="{callback_url}")
        await eventually(lambda: bodies)
        await call_back(queue, path_in(bodies[0]), {"early": True})
        assert (await queue.status(request_id))["status"] == "IN_PROGRESS"
        may_respond.set()
        assert (await queue.response(request_id)).json() == {"early": True}


async def test_a_callback_that_never_arrives(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        request_id = await queue.submit("POST", "/start?fal_callback_timeout=0.2", content="{callback_url}")
        received = await queue.reaches(request_id, "COMPLETED")
        assert (received["error"], received["error_type"]) == ("the external service sent no result in time", "request_timeout")
        assert (await queue.response(request_id)).status_code == 504
        await call_back(queue, path_in(starter.calls[0]["body"]), status=409)


async def test_the_request_is_cancelled_before_it(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        request_id, path = await begun(queue, starter)
        await eventually(lambda: _state(database) == "awaiting")
        assert (await queue.cancel(request_id)).status_code == 202
        assert (await queue.response(request_id)).status_code == 499
        await call_back(queue, path, status=409)


@pytest.mark.usefixtures("short_second_lookup")
@pytest.mark.parametrize("malformed", ["abc", "0" * 64, "A" * 64, "0" * 63, "%00" * 64])
async def test_an_unknown_id(database: Path, malformed: str) -> None:
    async with serving(http_only(Starter()), database) as queue:
        received = await queue.client.post(f"/fal/queue/v1/callbacks/{malformed}", json={})
        assert (received.status_code, received.json()) == (404, {"error": "Invalid or expired callback ID"})


async def test_a_hundred_at_once(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        request_id, path = await begun(queue, starter)
        await asyncio.gather(*[call_back(queue, path, {"number": number}) for number in range(100)])
        first = (await queue.response(request_id)).json()
        await call_back(queue, path, {"number": 101})
        assert (await queue.response(request_id)).json() == first


async def test_a_megabyte(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        request_id, path = await begun(queue, starter)
        payload = {"data": "x" * 2**20}
        await call_back(queue, path, payload)
        assert (await queue.response(request_id)).json() == payload


async def test_a_callback_above_the_body_limit(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database, max_request_body=1000) as queue:
        request_id, path = await begun(queue, starter)
        await call_back(queue, path, status=413, json={"data": "x" * 1000})
        await call_back(queue, path, {"small": True})
        assert (await queue.response(request_id)).json() == {"small": True}


@pytest.mark.parametrize("body", [b"", b"picture=7", b"{", b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000])
async def test_a_body_that_is_not_json_is_refused_and_the_request_keeps_waiting(database: Path, body: bytes) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        request_id, path = await begun(queue, starter)
        assert await call_back(queue, path, status=400, content=body) == {"error": "the body is not valid JSON"}
        await call_back(queue, path, content=b'"a text is JSON too"')
        assert (await queue.response(request_id)).json() == "a text is JSON too"


async def test_other_methods_than_post_are_refused(database: Path) -> None:
    async with serving(http_only(Starter()), database) as queue:
        received = await queue.client.get(f"/fal/queue/v1/callbacks/{'0' * 64}")
        assert (received.status_code, received.headers["allow"]) == (405, "POST")


async def test_a_restart_in_between(database: Path) -> None:
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        request_id, path = await begun(queue, starter)
        await eventually(lambda: _state(database) == "awaiting")
    async with serving(http_only(starter), database) as queue:
        await call_back(queue, path, {"after": "the restart"})
        assert (await queue.response(request_id)).json() == {"after": "the restart"}
    assert len(starter.calls) == 1


async def test_the_secret_is_replaced(database: Path) -> None:
    old, new = "0" * 64, "1" * 64
    starter = Starter(503)
    async with serving(http_only(starter), database, callback_secret=old) as queue:
        kept = await queue.submit("POST", "/start", content="{callback_url}")
        lost = await queue.submit("POST", "/start", content="{callback_url}")
        await eventually(lambda: len(starter.calls) == 2)
    starter.status = 202
    async with serving(http_only(starter), database, callback_secret=f"{new},{old}") as queue:
        await eventually(lambda: len({call["body"] for call in starter.calls}) == 2 and len(starter.calls) >= 4)
        await queue.cancel(kept)
        await queue.cancel(lost)
        third = await queue.submit("POST", "/start", content="{callback_url}")
        await eventually(lambda: len({call["body"] for call in starter.calls}) == 3)
        await queue.cancel(third)


# --- secrets


async def test_the_secret_is_stored_nowhere(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    """docs/reference/protocols/asyncqueue.md, "Extensions", 8: not if a provider, a log line or a response repeats it."""
    caplog.set_level(logging.DEBUG, logger="queue_middleware")
    urls: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        url = current_job.callback_url or ""
        urls.append(url)
        logging.getLogger("app").warning("calling the provider with %s", url)
        current_job.report_progress(0.5, f"received {url}")
        body = json.dumps({"webhook": url, "padding": "x" * 600_000, "again": url}).encode()
        await send({"type": "http.response.start", "status": 202, "headers": [(b"x-hook", url.encode())]})
        for start in range(0, len(body), 1000):
            await send({"type": "http.response.body", "body": body[start : start + 1000], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with serving(http_only(app), database) as queue:
        request_id = await queue.submit("POST", "/start")
        await eventually(lambda: urls)
        path = path_in(urls[0])
        secret = path.rpartition("/")[2]
        await eventually(lambda: _state(database) == "awaiting")
        assert secret.encode() not in _stored_bytes(database)
        prediction = {"id": "p", "input": {}, "created_at": "", "webhook": urls[0]}
        await call_back(queue, path, {**prediction, "status": "starting"})
        await call_back(queue, path, {**prediction, "status": "failed", "error": f"could not reach {urls[0]}"})
        received = await queue.reaches(request_id, "COMPLETED")
        assert received["error"].startswith("could not reach http://service.test/fal/queue/v1/callbacks/****")
        logs = await queue.client.get(f"/fal/queue/requests/{request_id}/status?logs=1")
        assert secret not in logs.text
        assert "calling the provider with" in logs.text
    assert secret.encode() not in _stored_bytes(database)
    assert secret not in "".join(record.getMessage() for record in caplog.records if record.name != "app")


def _stored_bytes(database: Path) -> bytes:
    """All rows, and the bytes of all files in the folder of the database."""
    with closing(sqlite3.connect(database)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [repr(row).encode() for name in tables for row in connection.execute(f"SELECT * FROM {name}")]
    return b"".join([*rows, *(path.read_bytes() for path in database.parent.iterdir() if path.is_file())])


async def test_the_server_cannot_log_an_id(database: Path) -> None:
    """Servers write the path of the scope to their access logs when the response starts."""
    starter = Starter()
    seen: list[str] = []

    def logging_server(app: Any) -> Any:
        async def server(scope: Message, receive: Receive, send: Send) -> None:
            async def logged(message: Message) -> None:
                if message["type"] == "http.response.start":
                    seen.append(scope["path"] + scope["raw_path"].decode())
                await send(message)

            await app(scope, receive, logged)

        return server

    async with serving(http_only(starter), database) as queue:
        _, path = await begun(queue, starter)
        queue.client._transport.app = app = logging_server(queue.client._transport.app)
        await call_back(queue, path)
        await call_back(queue, path[:-1] + "x", status=404)
        for method, address in (("GET", path), ("POST", path + "/"), ("POST", path + "/more"), ("PUT", path)):
            await queue.client.request(method, address, json={})
    async with client_of(app) as client:
        await call_back(Queue(client), path, status=503)
    assert seen == ["/fal/queue/v1/callbacks/hidden" * 2] * 7


@pytest.mark.usefixtures("short_second_lookup")
@pytest.mark.parametrize("kind", ["callbacks", "signals"])
async def test_the_body_is_not_read_for_an_unknown_id(database: Path, kind: str) -> None:
    """These routes need no API key, so memory for bodies is reserved for requests with a valid id."""
    received: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        received.append(message)

    async with serving(http_only(Starter()), database) as queue:
        path = f"/fal/queue/v1/{kind}/{'0' * 64}"
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
        await queue.client._transport.app(scope, receive, send)
    assert received[0]["status"] == 404
    assert (b"connection", b"close") in received[0]["headers"]


@pytest.mark.usefixtures("short_second_lookup")
async def test_failed_lookups_are_limited_by_address_and_others_are_not(database: Path) -> None:
    """docs/reference/protocols/asyncqueue.md, "Extensions", 5."""
    starter = Starter()
    async with serving(http_only(starter), database) as queue:
        _, path = await begun(queue, starter)
        lookups = [queue.client.post(f"/fal/queue/v1/callbacks/{number:064x}", json={}) for number in range(31)]
        received = sorted([response.status_code for response in await asyncio.gather(*lookups)])
        assert received == [404] * 30 + [429]
        refused = await queue.client.post(f"/fal/queue/v1/callbacks/{'0' * 64}", json={})
        assert (refused.status_code, refused.json()) == (429, {"error": "Rate limit exceeded"})
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        for _ in range(40):
            await call_back(queue, path)
