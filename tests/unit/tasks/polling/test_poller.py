"""The poller: which polls it sends, when and with which headers, what follows, and how it survives outages and stops."""

from __future__ import annotations

import asyncio
import math
import re
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest

from queue_middleware.errors import OutboundBusy, OutboundError, OutboundShortage, StoreBusy, UnknownRequest
from queue_middleware.events import Event, Finished, Polled, PollFailed, Recovered, ResultReceived, ServiceError
from queue_middleware.jobs.models import Claim, ErrorType, Headers, JobState, StoredResponse
from queue_middleware.jobs.store import Topic
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.observability.emitter import Emitter
from queue_middleware.outbound.client import HTTPClient
from queue_middleware.outbound.guard import Guard
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.tasks.models import CompletionSource
from queue_middleware.tasks.polling.config import LOCATION_POLLING
from queue_middleware.tasks.polling.poller import Poller
from queue_middleware.tasks.polling.providers import PROVIDERS
from queue_middleware.tasks.polling.request import PollClient
from queue_middleware.tasks.polling.schedule import first_poll_delay
from queue_middleware.tasks.secret_ids import SecretIds
from tests.support.clock import ManualClock
from tests.support.database_template import create_empty_database
from tests.support.doubles import EventQueue, FailingStore, FakeHosts, cancel_tasks, running
from tests.support.factories import make_job, make_response, make_result, make_task, make_wait
from tests.support.leases import lease_passes
from tests.support.providers import (
    HANG_UP,
    KEY,
    Accepted,
    ElevenLabs,
    Fal,
    Luma,
    Provider,
    Replicate,
    Reply,
    Runway,
    Stability,
    loopback_client,
    providing,
)

BEARER = {"authorization": f"Bearer {KEY}"}
FAL = {"authorization": f"Key {KEY}"}
POLLS = PollConfig("/status/{startResult.body.id}", "status", ("done",), ("broken",))


class Scripted(FakeHosts[StoredResponse]):
    """Replaces `PollClient`."""

    def __init__(self, *responses: StoredResponse | Exception) -> None:
        super().__init__(*responses)
        self.calls: list[tuple[str, dict[bytes, bytes]]] = []

    async def get(self, url: str, headers: Headers) -> StoredResponse:
        self.calls.append((url, dict(headers)))
        return await self.respond(url)


class Setup:
    """A store with a manual clock, and methods that make jobs awaiting."""

    def __init__(self, store: SQLiteStore, clock: ManualClock) -> None:
        self.store, self.clock = store, clock
        self.results = EventQueue(frozenset({ResultReceived}))
        self.events = EventQueue(frozenset(get_args(Event)) - {ResultReceived})
        self.secret_ids = SecretIds([b"a secret of this service"])
        self.client = loopback_client(5)

    @asynccontextmanager
    async def polling(self, client: Any = None, largest: int = 2**20, **options: Any):
        settings = Settings(task_targets=("127.0.0.1",), max_response_body=largest)
        async with HTTPClient(Guard(["127.0.0.1"])) as outbound:
            given = {
                "jobs": self.store,
                "tasks": self.store.tasks,
                "client": client or PollClient(outbound, settings),
                "secret_ids": self.secret_ids,
                "emit": Emitter([self.events, self.results]),
                "clock": self.clock.seconds,
                **options,
            }
            async with running(Poller(**given)) as poller:
                yield poller

    async def wait_for(
        self, config: PollConfig, response: StoredResponse, seconds: float | None = None, credentials: Headers = (), **spec: Any
    ) -> Claim:
        """A task whose call has returned and that awaits its provider from now on."""
        given = {"callback": False, "target": "http://127.0.0.1:9/start", "poll": config, **spec}
        job = make_job(task=self.secret_ids.new_task(make_task(**given).spec, listed=True), webhook="https://example.com/")
        receipt = await self.store.submit(job, start=True)
        claim = receipt.claim
        assert claim is not None
        assert claim.task is not None
        left = config.max_duration if seconds is None else seconds
        now = self.clock.now / 1000
        poll_in = first_poll_delay(config.interval, left, response.headers, now, expects_call=given["callback"])
        wait = make_wait(left, poll_in=poll_in, poll=config, credentials=credentials)
        assert await self.store.tasks.complete_attempt(claim, claim.task, response, wait)
        return claim

    async def post(self, url: str, headers: dict[str, str], order: bytes) -> StoredResponse:
        response = await self.client.post(url, headers=headers, content=order)
        assert response.is_success, response.text
        kept = tuple((name.lower(), value) for name, value in response.headers.raw)
        return StoredResponse(response.status_code, kept, response.content)

    async def start(self, provider: Provider, config: PollConfig, path: str, headers: dict[str, str], order: bytes) -> Claim:
        """Send the first call of a task to the provider, and then await it."""
        credentials = tuple((name.encode(), value.encode()) for name, value in headers.items())
        response = await self.post(provider.url + path, headers, order)
        return await self.wait_for(config, response, credentials=credentials, target=provider.url + path)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.store._notifier.publish({Topic.POLL})

    async def until_over(self, claim: Claim) -> tuple[list[Any], float]:
        """Advance the time from poll to poll. Returns the events on the way, and the seconds that passed."""
        began, events = self.clock.now, []
        while (await self.store.job(claim.request_id)).state is JobState.AWAITING:
            due = await self.store.next_due(Topic.POLL)
            if due is not None:  # otherwise all of them are running
                self.pass_time(due)
            events.append(await self.events.next())
        return events, (self.clock.now - began) / 1000

    async def result(self, claim: Claim) -> bytes:
        response = (await self.store.result(claim.request_id)).response
        assert response is not None
        return response.body

    async def failure(self, claim: Claim) -> tuple[ErrorType, str]:
        job = await self.store.job(claim.request_id)
        assert job.state is JobState.FAILED
        assert job.failure is not None
        return job.failure.error_type, job.failure.detail


@pytest.fixture
async def setup(tmp_path):
    clock = ManualClock()
    store = SQLiteStore(
        Settings(database=str(create_empty_database(tmp_path / "queue.sqlite3")), min_free_disk=0), clock, clock.boot
    )
    await store.open()
    setup = Setup(store, clock)
    async with setup.client:
        yield setup
    await store.close()


# --- the templates, each against its provider

RUNWAY = {**BEARER, "x-runway-version": "2024-11-06", "content-type": "application/json"}
TEMPLATES = {
    "fal": (Fal, "/fal-ai/flux/dev", FAL, b'{"prompt": "a cat"}'),
    "replicate": (Replicate, "/v1/models/stability-ai/sd3/predictions", BEARER, b'{"input": {"prompt": "a cat"}}'),
    "runwayml": (Runway, "/v1/image_to_video", RUNWAY, b'{"promptImage": "https://x"}'),
    "luma": (Luma, "/dream-machine/v1/generations/video", BEARER, b'{"prompt": "a cat"}'),
    "elevenlabs-dubbing": (ElevenLabs, "/v1/dubbing", {"xi-api-key": KEY}, b"--form"),
    "stability-video": (Stability, "/v2beta/image-to-video", BEARER, b"--form"),
}


@asynccontextmanager
async def begun(setup: Setup, name: str, ends: str = "", order: bytes | None = None):
    fake, path, headers, usual = TEMPLATES[name]
    async with providing(fake(ends=ends)) as provider:
        yield provider, await setup.start(provider, PROVIDERS[name].poll, path, headers, usual if order is None else order)


@pytest.mark.parametrize(
    ("name", "statuses", "seconds", "result"),
    [
        ("fal", ["IN_QUEUE", "IN_PROGRESS"], 9, rb'{"images": \[{"url": "https://fal.media/.*"prompt": "a cat"}'),
        ("replicate", ["starting", "processing"], 15, rb'\["https://replicate.delivery/\w+/out-0.webp"\]'),
        ("runwayml", ["PENDING", "THROTTLED", "RUNNING"], 20, rb'\["https://dnznrvs05pmza.cloudfront.net/\w+.mp4\?_jwt=x"\]'),
        ("luma", ["queued", "dreaming"], 15, rb"https://storage.cdn-luma.com/\w+.mp4"),
        ("elevenlabs-dubbing", ["dubbing", "dubbing"], 30, rb'{"dubbing_id": .*"status": "dubbed".*}'),
        ("stability-video", ["202", "202"], 30, rb'{"video": "AAAAGGZ0.*", "finish_reason": "SUCCESS", "seed": 1}'),
    ],
)
async def test_a_template_leads_to_the_result(setup, name, statuses, seconds, result):
    async with begun(setup, name) as (provider, claim), setup.polling():
        events, took = await setup.until_over(claim)
    assert [event.status for event in events[:-1]] == statuses
    assert [event.number for event in events[:-1]] == list(range(1, len(events)))
    assert isinstance(events[-1], Finished)
    assert took == seconds
    body = await setup.result(claim)
    assert re.fullmatch(result, body), body
    assert len(provider.polls) == len(events) + (name == "fal")


@pytest.mark.parametrize(
    ("name", "ends", "error"),
    [
        ("replicate", "failed", "CUDA out of memory"),
        ("replicate", "canceled", "the provider reports status canceled"),
        ("runwayml", "FAILED", "Your prompt was rejected by moderation."),
        ("runwayml", "CANCELLED", "the provider reports status CANCELLED"),
        ("luma", "failed", "prompt not allowed because advanced moderation failed"),
        ("elevenlabs-dubbing", "failed", "The video has no speech."),
        (
            "stability-video",
            "403",
            'the status request returned 403: ["The result has expired."]',
        ),
    ],
)
async def test_a_template_leads_to_the_reason_of_a_failure(setup, name, ends, error):
    async with begun(setup, name, ends) as (_, claim), setup.polling():
        await setup.until_over(claim)
    assert await setup.failure(claim) == (ErrorType.PROVIDER_FAILED, error)


async def test_fal_reports_a_failure_as_a_result_without_2xx(setup):
    async with begun(setup, "fal", order=b"{}") as (_, claim), setup.polling():
        await setup.until_over(claim)
    error_type, detail = await setup.failure(claim)
    assert error_type is ErrorType.PROVIDER_FAILED
    assert detail.startswith("the result request returned 422: ")
    assert "Field required" in detail


async def test_a_5xx_for_the_result_is_final_the_third_time(setup):
    async with begun(setup, "fal", "500") as (_, claim), setup.polling():
        events, _ = await setup.until_over(claim)
    assert [type(event) for event in events] == [Polled, Polled, PollFailed, PollFailed, Finished]
    assert await setup.results.next() == ResultReceived(claim.request_id, "poll", "ended")
    assert await setup.failure(claim) == (
        ErrorType.PROVIDER_FAILED,
        "the result request returned 500: Internal Server Error",
    )


async def test_credentials_go_to_the_provider_only(setup):
    credentials = ((b"authorization", FAL["authorization"].encode()),)
    async with providing(Fal()) as other, begun(setup, "fal") as (provider, claim), setup.polling():
        response = await setup.post(f"{provider.url}/a/b", FAL, b"{}")
        elsewhere = response.replace(body=response.body.replace(provider.url.encode(), other.url.encode()))
        target = f"{provider.url}/a/b"
        robbed = await setup.wait_for(PROVIDERS["fal"].poll, elsewhere, credentials=credentials, target=target)
        await setup.until_over(claim)
        await setup.until_over(robbed)
    assert all(call.headers["authorization"] == FAL["authorization"] for call in provider.polls)
    assert other.polls
    assert not any("authorization" in call.headers for call in other.polls)


# --- 202 with Location


@pytest.mark.parametrize(("ends", "result"), [("", b'{"rows": 3}'), ("303", b"a,b\r\n1,2\r\n")])
async def test_a_location_is_polled_at_the_pace_of_retry_after(setup, ends, result):
    async with providing(Accepted(ends=ends)) as provider, setup.polling():
        claim = await setup.start(provider, LOCATION_POLLING, "/work", BEARER, b"{}")
        events, took = await setup.until_over(claim)
    assert [event.status for event in events[:-1]] == ["running", "running"]
    assert took == 21  # three times `Retry-After: 7`
    assert await setup.result(claim) == result


# --- failed polls


async def test_failed_polls_are_repeated(setup):
    async with begun(setup, "replicate") as (provider, claim), setup.polling():
        busy, slow = Reply(503, {"detail": "later"}), Reply(429, {"detail": "slow down"}, [("retry-after", "30")])
        provider.interruptions.extend([Reply(404, {"detail": "not seen yet"}), busy, HANG_UP, slow, None, Reply(502), None])
        events, took = await setup.until_over(claim)
    assert [event.error if isinstance(event, PollFailed) else event.status for event in events] == [
        "the status request returned 404",
        "the status request returned 503",
        "the connection ended without an HTTP response",
        "the status request returned 429",
        "starting",
        "the status request returned 502",
        "processing",
        200,
    ]
    #        first, 404, 503, lost, 429, start, 502, processing
    assert took == 5 + 5 + 10 + 20 + 30 + 5 + 5 + 5
    assert await setup.result(claim) == b'["https://replicate.delivery/%s/out-0.webp"]' % next(iter(provider.jobs)).encode()


async def test_a_third_404_is_final(setup):
    async with begun(setup, "replicate") as (provider, claim), setup.polling():
        provider.jobs.clear()
        events, _ = await setup.until_over(claim)
    assert [type(event) for event in events] == [PollFailed, PollFailed, Finished]
    expected = "the status request returned 404: Not found"
    assert await setup.failure(claim) == (ErrorType.PROVIDER_FAILED, expected)


async def test_a_refused_key_fails_at_once(setup):
    async with begun(setup, "runwayml") as (provider, claim), setup.polling():
        provider.interruptions.append(Reply(401, {"error": "The API key is invalid."}))
        events, _ = await setup.until_over(claim)
    assert len(events) == 1
    assert (await setup.failure(claim))[1] == "the status request returned 401: The API key is invalid."


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (make_response(b"{}"), "the target's response has no usable body.id, which the poll URL needs"),
        (make_response(b"no json"), "the target's response has no usable body.id, which the poll URL needs"),
    ],
)
async def test_a_response_without_the_values_of_the_template_is_a_failure(setup, response, error):
    claim = await setup.wait_for(POLLS, response)
    async with setup.polling(Scripted(make_response())):
        await setup.until_over(claim)
    assert await setup.failure(claim) == (ErrorType.PROVIDER_FAILED, error)


async def test_hosts_outside_task_targets_are_not_polled(setup):
    claim = await setup.wait_for(LOCATION_POLLING, StoredResponse(202, ((b"location", b"https://evil.example/"),), b""))
    async with setup.polling():
        await setup.until_over(claim)
    expected = "the provider cannot be polled: evil.example is not in task_targets"
    assert await setup.failure(claim) == (ErrorType.PROVIDER_FAILED, expected)


async def test_hosts_outside_task_targets_are_not_polled_after_a_redirect(setup):
    moved = Reply(302, b"", [("location", "https://evil.example/")])
    async with begun(setup, "luma") as (provider, claim), setup.polling():
        provider.interruptions.append(moved)
        await setup.until_over(claim)
    assert (await setup.failure(claim))[1].startswith("the provider cannot be polled")


async def test_redirects_are_limited(setup):
    async with begun(setup, "luma") as (provider, claim), setup.polling():
        path = f"/dream-machine/v1/generations/{next(iter(provider.jobs))}"
        provider.interruptions.append(Reply(307, b"", [("location", path)]))
        provider.interruptions.append(None)
        provider.interruptions.extend([Reply(302, b"", [("location", path)])] * 6)
        events, _ = await setup.until_over(claim)
    assert [event.error if isinstance(event, PollFailed) else event.status for event in events] == [
        "queued",
        "more than 5 redirects",
        "dreaming",
        200,
    ]


async def test_a_response_above_the_limit_is_not_read(setup):
    async with begun(setup, "luma") as (provider, _), setup.polling(largest=100):
        setup.pass_time(5)
        assert (await setup.events.next()).error == "the response is larger than 100 bytes"
    assert len(provider.polls) == 1


async def test_an_unexpected_error_is_reported_and_the_poll_repeated(setup):
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'))
    async with setup.polling(Scripted(RuntimeError("a defect"), make_response(b'{"status": "done"}'))):
        setup.pass_time(5)
        assert isinstance(await setup.events.next(), ServiceError)
        assert (await setup.events.next()).error == "not sent: RuntimeError"
        await setup.until_over(claim)
    assert await setup.result(claim) == b'{"status": "done"}'


@pytest.mark.parametrize("lack", [OutboundBusy("too many names"), OutboundShortage("Too many open files")])
async def test_a_poll_that_was_not_sent_is_not_a_failure_of_the_provider(setup, lack):
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'))
    async with setup.polling(Scripted(lack, lack, lack, make_response(b'{"status": "done"}'))):
        first = asyncio.create_task(setup.events.next())
        while not first.done():
            setup.pass_time(5)
            await asyncio.sleep(0.001)
        assert isinstance(await first, Finished), "no event before"
    assert await setup.result(claim) == b'{"status": "done"}'


# --- the deadline


async def test_the_last_poll_is_at_the_deadline(setup):
    config = POLLS.replace(interval=40.0, max_duration=100.0)
    claim = await setup.wait_for(config, make_response(b'{"id": 7}'))
    wire = Scripted(make_response(b'{"status": "busy"}'))
    async with setup.polling(wire):
        events, took = await setup.until_over(claim)
    assert ([event.next_in for event in events[:-1]], took, len(wire.calls)) == ([40, 20], 100, 3)
    expected = "the provider did not finish in time; the last status was busy"
    assert await setup.failure(claim) == (ErrorType.WAIT_TIMEOUT, expected)


async def test_a_timeout_reports_the_last_error(setup):
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'), 8.0)
    async with setup.polling(Scripted(make_response(b'{"error": "overloaded"}', 503))):
        await setup.until_over(claim)
    error_type, detail = await setup.failure(claim)
    assert error_type is ErrorType.WAIT_TIMEOUT
    assert detail.startswith("the provider did not finish in time; the last poll failed: ")
    assert detail.endswith("the status request returned 503: overloaded")


@pytest.mark.parametrize("done_after", [1, 2, math.inf])
async def test_with_a_callback_polls_are_at_half_time_and_at_the_deadline(setup, done_after):
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'), 600.0, callback=True)
    later = ((b"retry-after", b"7"),)
    busy, done = make_response(b'{"status": "busy"}', headers=later), make_response(b'{"status": "done"}')
    wire = Scripted(*([busy] * (1 if done_after == 2 else 0)), busy if done_after is math.inf else done)
    async with setup.polling(wire):
        events, took = await setup.until_over(claim)
    assert (len(events), took) == ((1, 300.0) if done_after == 1 else (2, 600.0))
    if done_after is math.inf:
        assert (await setup.failure(claim))[0] is ErrorType.WAIT_TIMEOUT
    else:
        assert await setup.result(claim) == b'{"status": "done"}'


async def test_a_failed_poll_at_half_time_is_repeated(setup):
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'), 600.0, callback=True)
    async with setup.polling(Scripted(OutboundError("no connection"), make_response(b'{"status": "done"}'))):
        _, took = await setup.until_over(claim)
    assert took == 305.0


async def test_a_callback_during_a_poll_takes_precedence(setup):
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'), callback=True)
    wire = Scripted(make_response(b'{"status": "done"}'))
    wire.gate.clear()
    async with setup.polling(wire):
        setup.pass_time(300)
        await wire.arrived.acquire()
        await setup.store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(b'"called"'))
        wire.gate.set()
    assert await setup.result(claim) == b'"called"'
    assert setup.events.queue.empty()


# --- the loop


def at(host: str) -> PollConfig:
    return POLLS.replace(url_template=f"https://{host}.example/{{startResult.body.id}}")


async def test_polls_are_limited_at_once(setup):
    claims = [await setup.wait_for(at(f"h{number}"), make_response(b'{"id": 7}')) for number in range(7)]
    wire = Scripted(make_response(b'{"status": "done"}'))
    wire.gate.clear()
    async with setup.polling(wire, limit=4):
        setup.pass_time(5)
        for _ in range(3):
            await wire.arrived.acquire()
        wire.gate.set()
        for _ in claims:
            assert isinstance(await setup.events.next(), Finished)
    assert wire.max_in_flight == 3, "a fourth place is kept for hosts that are known to be prompt"


async def test_a_provider_that_hangs_leaves_capacity_to_others(setup):
    wire, slow = Scripted(make_response(b'{"status": "done"}')), 10
    wire.held_prefix = "https://slow.example/"
    wire.gate.clear()
    for _ in range(slow):
        await setup.wait_for(at("slow"), make_response(b'{"id": 7}'))
    async with setup.polling(wire):
        setup.pass_time(5)
        for _ in range(4):
            await wire.arrived.acquire()
        for number in range(6):
            claim = await setup.wait_for(at(f"other{number}"), make_response(b'{"id": 7}'))
            setup.pass_time(5)
            assert (await setup.events.next()).request_id == claim.request_id
        assert wire.max_in_flight == 4 + 1
        wire.gate.set()
        for _ in range(slow):
            assert isinstance(await setup.events.next(), Finished)


async def test_providers_that_hang_leave_capacity_to_a_prompt_one(setup):
    """Eight hosts with one poll each: no host exceeds its share, but together they would take all of the capacity."""
    wire = Scripted(make_response(b'{"status": "done"}'))
    async with setup.polling(wire):
        await setup.wait_for(at("prompt"), make_response(b'{"id": 7}'))
        setup.pass_time(5)
        assert isinstance(await setup.events.next(), Finished)
        await wire.arrived.acquire()
        wire.held_prefix = "https://slow"
        wire.gate.clear()
        for number in range(8):
            await setup.wait_for(at(f"slow{number}"), make_response(b'{"id": 7}'))
        setup.pass_time(5)
        for _ in range(6):
            await wire.arrived.acquire()
        for _ in range(3):
            claim = await setup.wait_for(at("prompt"), make_response(b'{"id": 7}'))
            setup.pass_time(5)
            assert (await setup.events.next()).request_id == claim.request_id
        wire.gate.set()
        for _ in range(8):
            assert isinstance(await setup.events.next(), Finished)


async def test_a_poll_that_is_cancelled_before_it_begins_frees_its_capacity(setup):
    """As when a defect ends the loop and it is restarted."""
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'))
    loop, cancelled = asyncio.get_running_loop(), []

    class Cancelling:
        """A task store whose first polls are cancelled before their first step."""

        def __getattr__(self, name):
            return getattr(setup.store.tasks, name)

        async def claim_polls(self, capacity):
            claimed = await setup.store.tasks.claim_polls(capacity)
            if not cancelled:
                loop.call_soon(lambda: cancelled.extend(cancel_tasks("poll ")))
            return claimed

    wire = Scripted(make_response(b'{"status": "done"}'))
    async with setup.polling(wire, tasks=Cancelling(), limit=1):
        setup.pass_time(5)
        async with asyncio.timeout(10):
            while not cancelled:
                await asyncio.sleep(0)
        await lease_passes(setup.store, setup.clock)
        await setup.store.rescue()
        assert (await setup.events.next()).request_id == claim.request_id
    assert len(wire.calls) == 1


async def test_polling_continues_after_an_outage_while_claiming(setup, monkeypatch):
    monkeypatch.setattr("queue_middleware.background.exponential", lambda number, longest: 0.0)
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'))
    setup.pass_time(5)
    broken = FailingStore(setup.store.tasks, "claim_polls", StoreBusy("busy", 1), RuntimeError("odd"))
    async with setup.polling(Scripted(make_response(b'{"status": "done"}')), tasks=broken):
        assert [type(await setup.events.next()) for _ in range(4)] == [ServiceError, ServiceError, Recovered, Finished]
    assert await setup.result(claim) == b'{"status": "done"}'


@pytest.mark.parametrize("method", ["resolve", "settle_poll"])
async def test_an_outage_while_settling_loses_nothing(setup, monkeypatch, method):
    monkeypatch.setattr("queue_middleware.background.exponential", lambda number, longest: 0.0)
    await setup.wait_for(POLLS, make_response(b'{"id": 7}'))
    setup.pass_time(5)
    broken = FailingStore(setup.store.tasks, method, StoreBusy("busy", 1), StoreBusy("busy", 1))
    wire = Scripted(make_response(b'{"status": "done"}' if method == "resolve" else b"{}"))
    async with setup.polling(wire, tasks=broken):
        last = Finished if method == "resolve" else Polled
        assert [type(await setup.events.next()) for _ in range(4)] == [ServiceError, ServiceError, Recovered, last]
    assert len(wire.calls) == 1


async def test_a_job_that_retention_has_deleted_is_ignored(setup):
    await setup.wait_for(POLLS, make_response(b'{"id": 7}'))
    setup.pass_time(5)
    gone = FailingStore(setup.store.tasks, "resolve", UnknownRequest("the request is no longer kept"))
    wire = Scripted(make_response(b'{"status": "done"}'))
    async with setup.polling(wire, tasks=gone):
        await wire.arrived.acquire()
    assert setup.events.queue.empty()


async def test_it_stops_during_an_outage_of_the_database(setup):
    await setup.wait_for(POLLS, make_response(b'{"id": 7}'))
    setup.pass_time(5)
    broken = FailingStore(setup.store.tasks, "resolve", *[StoreBusy("busy", 1)] * 99)
    async with setup.polling(Scripted(make_response(b'{"status": "done"}')), tasks=broken):
        assert isinstance(await setup.events.next(), ServiceError)


async def test_a_running_poll_gets_grace_and_is_then_cancelled(setup):
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'))
    wire = Scripted(make_response(b'{"status": "done"}'))
    wire.gate.clear()
    async with setup.polling(wire, grace=0.01) as poller:
        setup.pass_time(5)
        await wire.arrived.acquire()
        poller.stop()
        poller.stop()  # repeatable
    assert wire.in_flight == 0
    assert (await setup.store.job(claim.request_id)).state is JobState.AWAITING
    wire.gate.set()
    await lease_passes(setup.store, setup.clock)
    await setup.store.rescue()
    async with setup.polling(wire):
        assert isinstance(await setup.events.next(), Finished)
    assert await setup.result(claim) == b'{"status": "done"}'


async def test_a_poll_that_takes_too_long_fails(setup, monkeypatch):
    monkeypatch.setattr("queue_middleware.tasks.polling.poller.POLL_TIMEOUT", 0.02)
    await setup.wait_for(POLLS, make_response(b'{"id": 7}'))
    wire = Scripted(make_response(b'{"status": "done"}'))
    wire.gate.clear()
    async with setup.polling(wire):
        setup.pass_time(5)
        assert (await setup.events.next()).error == "no complete response within 0.02 s"
        wire.gate.set()


async def test_a_callback_id_in_a_response_is_not_stored(setup):
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'), callback=True)
    assert claim.task is not None
    secret = setup.secret_ids.callback_id_of(claim.task)
    assert secret is not None
    body = b'{"status": "broken", "error": "no receiver at %s"}' % secret.encode()
    async with setup.polling(Scripted(make_response(body))):
        await setup.until_over(claim)
    assert await setup.failure(claim) == (ErrorType.PROVIDER_FAILED, f"no receiver at {'*' * 64}")
    response = (await setup.store.tasks.record(claim.request_id)).response
    assert response is not None
    assert secret.encode() not in response.body


async def test_a_callback_id_in_headers_is_not_stored_but_redirects_with_it_are_followed(setup):
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'), callback=True)
    secret = setup.secret_ids.callback_id_of(claim.task)
    elsewhere = b"http://127.0.0.1:9/status?hook=" + secret.encode()
    moved = StoredResponse(302, ((b"location", elsewhere),), b"")
    done = StoredResponse(200, ((b"link", b"<%s>" % elsewhere),), b'{"status": "done"}')
    wire = Scripted(moved, done)
    async with setup.polling(wire):
        await setup.until_over(claim)
    assert wire.calls[1][0] == elsewhere.decode()
    response = (await setup.store.tasks.record(claim.request_id)).response
    assert response.headers == ((b"link", b"<http://127.0.0.1:9/status?hook=%s>" % (b"*" * 64)),)


@pytest.mark.parametrize("headers", [((b"location", b"https://evil.example/"),), ()])
async def test_a_provider_that_cannot_be_polled_may_still_call_back(setup, headers):
    """A poll that is impossible at half of the time must not end the task before its callback."""
    claim = await setup.wait_for(LOCATION_POLLING, StoredResponse(202, headers, b""), 600.0, callback=True)
    async with setup.polling():
        setup.pass_time(300)
        assert isinstance(await setup.events.next(), PollFailed)
        assert (await setup.store.job(claim.request_id)).state is JobState.AWAITING
        await setup.store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(b'"called"'))
    assert await setup.result(claim) == b'"called"'


async def test_a_start_response_in_chunks_is_read_whole(setup):
    receipt = await setup.store.submit(
        make_job(task=setup.secret_ids.new_task(make_task(callback=False, target="http://127.0.0.1:9/x", poll=POLLS).spec)),
        start=True,
    )
    claim = receipt.claim
    assert claim is not None
    assert claim.task is not None
    assert await setup.store.append(claim, 0, b'{"padding": "')
    assert await setup.store.append(claim, 1, b'x", ')
    last = StoredResponse(200, (), b'"id": 7}', 2)
    assert await setup.store.tasks.complete_attempt(claim, claim.task, last, make_wait(60.0, poll_in=5.0))
    client = Scripted(make_response(b'{"status": "done"}'))
    async with setup.polling(client):
        await setup.until_over(claim)
    assert [url for url, _ in client.calls] == ["http://127.0.0.1:9/status/7"]


async def test_hop_by_hop_headers_are_not_stored(setup):
    claim = await setup.wait_for(POLLS, make_response(b'{"id": 7}'))
    headers = ((b"content-type", b"application/json"), (b"connection", b"close"), (b"transfer-encoding", b"chunked"))
    async with setup.polling(Scripted(StoredResponse(200, headers, b'{"status": "done"}'))):
        await setup.until_over(claim)
    response = (await setup.store.result(claim.request_id)).response
    assert response is not None
    assert response.headers == ((b"content-type", b"application/json"),)
