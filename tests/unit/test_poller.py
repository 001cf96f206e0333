"""The loop that asks providers: when it asks, whom, with which headers, and what follows, over outages and stops."""

from __future__ import annotations

import asyncio
import math
import re
from contextlib import asynccontextmanager
from typing import Any

import pytest

from queue_middleware.cadence import first_question
from queue_middleware.callback_id import CallbackIds
from queue_middleware.errors import OutboundBusy, OutboundError, OutboundShortage, StoreBusy, UnknownRequest
from queue_middleware.events import Finished, Outage, Polled, PollFailed, Recovered, announce_to
from queue_middleware.guard import Guard
from queue_middleware.inquiry import Inquiry
from queue_middleware.models import Claim, ErrorType, Headers, JobState, StoredResponse
from queue_middleware.outbound import Outbound
from queue_middleware.poller import Poller
from queue_middleware.settings import Settings
from queue_middleware.store import Topic
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.tasks import Channel
from queue_middleware.taskspec import PollConfig
from queue_middleware.waiting import FOLLOW
from queue_middleware.wire.providers import PROVIDERS
from tests.blank import lay_blank
from tests.clock import ManualClock
from tests.fake_providers import (
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
from tests.leases import lease_passes
from tests.nouns import a_job, a_task, a_wait, a_word, an_answer
from tests.standins import Ear, Faulty, Wire, cancel_tasks, looping

BEARER = {"authorization": f"Bearer {KEY}"}
FAL = {"authorization": f"Key {KEY}"}
ASKED = PollConfig("/status/{startResult.body.id}", "status", ("done",), ("broken",))


class Scripted(Wire[StoredResponse]):
    """In place of `Inquiry`."""

    def __init__(self, *answers: StoredResponse | Exception) -> None:
        super().__init__(*answers)
        self.calls: list[tuple[str, dict[bytes, bytes]]] = []

    async def get(self, url: str, headers: Headers) -> StoredResponse:
        self.calls.append((url, dict(headers)))
        return await self.answer(url)


class Bench:
    """A store on a file whose clock stands still, and hands to make tasks wait."""

    def __init__(self, store: SQLiteStore, clock: ManualClock) -> None:
        self.store, self.clock, self.ear = store, clock, Ear()
        self.ids = CallbackIds([b"a secret of this service"])
        self.client = loopback_client(5)

    @asynccontextmanager
    async def asking(self, inquiry: Any = None, largest: int = 2**20, **options: Any):
        settings = Settings(task_targets=("127.0.0.1",), max_response_body=largest)
        async with Outbound(Guard(["127.0.0.1"])) as outbound:
            given = {
                "store": self.store,
                "room": self.store.waiting,
                "inquiry": inquiry or Inquiry(outbound, settings),
                "ids": self.ids,
                "announce": announce_to([self.ear]),
                "clock": self.clock.seconds,
                **options,
            }
            async with looping(Poller(**given)) as poller:
                yield poller

    async def wait_for(
        self, config: PollConfig, answer: StoredResponse, seconds: float | None = None, credentials: Headers = (), **spec: Any
    ) -> Claim:
        """A task whose first call was answered, and that waits for its provider from now on."""
        given = {"callback": False, "target": "http://127.0.0.1:9/start", "poll": config, **spec}
        job = a_job(task=self.ids.new_task(a_task(**given).spec, listed=True), webhook="https://example.com/")
        receipt = await self.store.submit(job, start=True)
        claim = receipt.claim
        assert claim is not None
        assert claim.task is not None
        left = config.max_duration if seconds is None else seconds
        now = self.clock.now / 1000
        poll_in = first_question(config.interval, left, answer.headers, now, word_awaited=given["callback"])
        wait = a_wait(left, poll_in=poll_in, poll=config, credentials=credentials)
        assert await self.store.waiting.conclude(claim, claim.task, answer, wait)
        return claim

    async def post(self, url: str, headers: dict[str, str], order: bytes) -> StoredResponse:
        answer = await self.client.post(url, headers=headers, content=order)
        assert answer.is_success, answer.text
        kept = tuple((name.lower(), value) for name, value in answer.headers.raw)
        return StoredResponse(answer.status_code, kept, answer.content)

    async def start(self, provider: Provider, config: PollConfig, path: str, headers: dict[str, str], order: bytes) -> Claim:
        """The first call of a task, for real, and then the wait."""
        credentials = tuple((name.encode(), value.encode()) for name, value in headers.items())
        answer = await self.post(provider.url + path, headers, order)
        return await self.wait_for(config, answer, credentials=credentials, target=provider.url + path)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.store._notifier.publish({Topic.POLL})

    async def until_over(self, claim: Claim) -> tuple[list[Any], float]:
        """Let the time pass, from question to question. What was heard on the way, and how many seconds it took."""
        began, heard = self.clock.now, []
        while (await self.store.job(claim.request_id)).state is JobState.WAITING:
            due = await self.store.next_due(Topic.POLL)
            if due is not None:  # else all of them are being asked
                self.pass_time(due)
            heard.append(await self.ear.next())
        return heard, (self.clock.now - began) / 1000

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
async def bench(tmp_path):
    clock = ManualClock()
    store = SQLiteStore(Settings(database=str(lay_blank(tmp_path / "queue.sqlite3")), min_free_disk=0), clock, clock.boot)
    await store.open()
    bench = Bench(store, clock)
    async with bench.client:
        yield bench
    await store.close()


# --- the templates, each against the provider that it is for

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
async def begun(bench: Bench, name: str, ends: str = "", order: bytes | None = None):
    fake, path, headers, usual = TEMPLATES[name]
    async with providing(fake(ends=ends)) as provider:
        yield provider, await bench.start(provider, PROVIDERS[name].poll, path, headers, usual if order is None else order)


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
async def test_a_template_leads_to_the_result(bench, name, statuses, seconds, result):
    async with begun(bench, name) as (provider, claim), bench.asking():
        heard, took = await bench.until_over(claim)
    assert [event.status for event in heard[:-1]] == statuses
    assert [event.number for event in heard[:-1]] == list(range(1, len(heard)))
    assert isinstance(heard[-1], Finished)
    assert took == seconds
    body = await bench.result(claim)
    assert re.fullmatch(result, body), body
    assert len(provider.questions) == len(heard) + (name == "fal")


@pytest.mark.parametrize(
    ("name", "ends", "error"),
    [
        ("replicate", "failed", "CUDA out of memory"),
        ("replicate", "canceled", "the provider says canceled"),
        ("runwayml", "FAILED", "Your prompt was rejected by moderation."),
        ("runwayml", "CANCELLED", "the provider says CANCELLED"),
        ("luma", "failed", "prompt not allowed because advanced moderation failed"),
        ("elevenlabs-dubbing", "failed", "The video has no speech."),
        (
            "stability-video",
            "403",
            'the question for the status was answered 403: ["The result has expired."]',
        ),
    ],
)
async def test_a_template_leads_to_the_reason_of_a_failure(bench, name, ends, error):
    async with begun(bench, name, ends) as (_, claim), bench.asking():
        await bench.until_over(claim)
    assert await bench.failure(claim) == (ErrorType.PROVIDER_FAILED, error)


async def test_of_fal_a_result_that_is_no_2xx_is_the_failure(bench):
    async with begun(bench, "fal", order=b"{}") as (_, claim), bench.asking():
        await bench.until_over(claim)
    error_type, detail = await bench.failure(claim)
    assert error_type is ErrorType.PROVIDER_FAILED
    assert detail.startswith("the result was answered 422: ")
    assert "Field required" in detail


async def test_of_fal_a_5xx_for_the_result_is_believed_the_third_time(bench):
    async with begun(bench, "fal", "500") as (_, claim), bench.asking():
        heard, _ = await bench.until_over(claim)
    assert [type(event) for event in heard] == [Polled, Polled, PollFailed, PollFailed, Finished]
    assert await bench.failure(claim) == (ErrorType.PROVIDER_FAILED, "the result was answered 500: Internal Server Error")


async def test_the_key_goes_to_the_provider_and_nowhere_else(bench):
    credentials = ((b"authorization", FAL["authorization"].encode()),)
    async with providing(Fal()) as other, begun(bench, "fal") as (provider, claim), bench.asking():
        answer = await bench.post(f"{provider.url}/a/b", FAL, b"{}")
        elsewhere = answer.replace(body=answer.body.replace(provider.url.encode(), other.url.encode()))
        target = f"{provider.url}/a/b"
        robbed = await bench.wait_for(PROVIDERS["fal"].poll, elsewhere, credentials=credentials, target=target)
        await bench.until_over(claim)
        await bench.until_over(robbed)
    assert all(call.headers["authorization"] == FAL["authorization"] for call in provider.questions)
    assert other.questions
    assert not any("authorization" in call.headers for call in other.questions)


# --- 202 with Location


@pytest.mark.parametrize(("ends", "result"), [("", b'{"rows": 3}'), ("303", b"a,b\r\n1,2\r\n")])
async def test_a_location_is_followed_at_the_pace_that_the_provider_wishes(bench, ends, result):
    async with providing(Accepted(ends=ends)) as provider, bench.asking():
        claim = await bench.start(provider, FOLLOW, "/work", BEARER, b"{}")
        heard, took = await bench.until_over(claim)
    assert [event.status for event in heard[:-1]] == ["running", "running"]
    assert took == 21  # three times `Retry-After: 7`
    assert await bench.result(claim) == result


# --- trouble


async def test_trouble_is_overcome(bench):
    async with begun(bench, "replicate") as (provider, claim), bench.asking():
        busy, slow = Reply(503, {"detail": "later"}), Reply(429, {"detail": "slow down"}, [("retry-after", "30")])
        provider.interruptions.extend([Reply(404, {"detail": "not seen yet"}), busy, HANG_UP, slow, None, Reply(502), None])
        heard, took = await bench.until_over(claim)
    assert [getattr(event, "reason", getattr(event, "status", None)) for event in heard] == [
        "the question for the status was answered 404",
        "the question for the status was answered 503",
        "the connection ended without an HTTP answer",
        "the question for the status was answered 429",
        "starting",
        "the question for the status was answered 502",
        "processing",
        None,
    ]
    #        first, 404, 503, lost, 429, start, 502, processing
    assert took == 5 + 5 + 10 + 20 + 30 + 5 + 5 + 5
    assert await bench.result(claim) == b'["https://replicate.delivery/%s/out-0.webp"]' % next(iter(provider.jobs)).encode()


async def test_what_is_found_nowhere_three_times_is_gone(bench):
    async with begun(bench, "replicate") as (provider, claim), bench.asking():
        provider.jobs.clear()
        heard, _ = await bench.until_over(claim)
    assert [type(event) for event in heard] == [PollFailed, PollFailed, Finished]
    expected = "the question for the status was answered 404: Not found"
    assert await bench.failure(claim) == (ErrorType.PROVIDER_FAILED, expected)


async def test_a_key_that_is_refused_fails_at_once(bench):
    async with begun(bench, "runwayml") as (provider, claim), bench.asking():
        provider.interruptions.append(Reply(401, {"error": "The API key is invalid."}))
        heard, _ = await bench.until_over(claim)
    assert len(heard) == 1
    assert (await bench.failure(claim))[1] == "the question for the status was answered 401: The API key is invalid."


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (an_answer(b"{}"), "the answer to the first call has no body.id that could be in an address"),
        (an_answer(b"no json"), "the answer to the first call has no body.id that could be in an address"),
    ],
)
async def test_an_answer_that_does_not_say_where_to_ask_is_a_failure(bench, answer, error):
    claim = await bench.wait_for(ASKED, answer)
    async with bench.asking(Scripted(an_answer())):
        await bench.until_over(claim)
    assert await bench.failure(claim) == (ErrorType.PROVIDER_FAILED, error)


async def test_nobody_is_asked_whom_the_owner_does_not_allow(bench):
    claim = await bench.wait_for(FOLLOW, StoredResponse(202, ((b"location", b"https://evil.example/"),), b""))
    async with bench.asking():
        await bench.until_over(claim)
    expected = "the provider may not be asked: the option 'task_targets' does not allow to call evil.example"
    assert await bench.failure(claim) == (ErrorType.PROVIDER_FAILED, expected)


async def test_nor_after_a_redirect(bench):
    moved = Reply(302, b"", [("location", "https://evil.example/")])
    async with begun(bench, "luma") as (provider, claim), bench.asking():
        provider.interruptions.append(moved)
        await bench.until_over(claim)
    assert (await bench.failure(claim))[1].startswith("the provider may not be asked")


async def test_redirects_are_followed_but_not_for_ever(bench):
    async with begun(bench, "luma") as (provider, claim), bench.asking():
        path = f"/dream-machine/v1/generations/{next(iter(provider.jobs))}"
        provider.interruptions.append(Reply(307, b"", [("location", path)]))
        provider.interruptions.append(None)
        provider.interruptions.extend([Reply(302, b"", [("location", path)])] * 6)
        heard, _ = await bench.until_over(claim)
    assert [getattr(event, "reason", getattr(event, "status", None)) for event in heard] == [
        "queued",
        "more than 5 redirects",
        "dreaming",
        None,
    ]


async def test_an_answer_that_is_too_large_is_not_read(bench):
    async with begun(bench, "luma") as (provider, _), bench.asking(largest=100):
        bench.pass_time(5)
        assert (await bench.ear.next()).reason == "the answer is larger than 100 bytes"
    assert len(provider.questions) == 1


async def test_what_is_not_foreseen_is_told_and_asked_again(bench):
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'))
    async with bench.asking(Scripted(RuntimeError("a defect"), an_answer(b'{"status": "done"}'))):
        bench.pass_time(5)
        assert isinstance(await bench.ear.next(), Outage)
        assert (await bench.ear.next()).reason == "not asked: RuntimeError"
        await bench.until_over(claim)
    assert await bench.result(claim) == b'{"status": "done"}'


@pytest.mark.parametrize("lack", [OutboundBusy("too many names"), OutboundShortage("Too many open files")])
async def test_what_could_not_be_asked_is_no_trouble_of_the_provider(bench, lack):
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'))
    async with bench.asking(Scripted(lack, lack, lack, an_answer(b'{"status": "done"}'))):
        first = asyncio.create_task(bench.ear.next())
        while not first.done():
            bench.pass_time(5)
            await asyncio.sleep(0.001)
        assert isinstance(await first, Finished), "nothing was announced on the way"
    assert await bench.result(claim) == b'{"status": "done"}'


# --- the end of patience


async def test_after_its_time_it_is_asked_a_last_time(bench):
    config = ASKED.replace(interval=40.0, max_duration=100.0)
    claim = await bench.wait_for(config, an_answer(b'{"id": 7}'))
    wire = Scripted(an_answer(b'{"status": "busy"}'))
    async with bench.asking(wire):
        heard, took = await bench.until_over(claim)
    assert ([event.wait for event in heard[:-1]], took, len(wire.calls)) == ([40, 20], 100, 3)
    expected = "the provider was not done in time; the last status was busy"
    assert await bench.failure(claim) == (ErrorType.WAIT_TIMEOUT, expected)


async def test_a_time_out_says_what_went_wrong_last(bench):
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'), 8.0)
    async with bench.asking(Scripted(an_answer(b'{"error": "overloaded"}', 503))):
        await bench.until_over(claim)
    error_type, detail = await bench.failure(claim)
    assert error_type is ErrorType.WAIT_TIMEOUT
    assert detail.startswith("the provider was not done in time; the last question came to nothing: ")
    assert detail.endswith("the question for the status was answered 503: overloaded")


@pytest.mark.parametrize("done_after", [1, 2, math.inf])
async def test_one_who_is_to_call_back_is_asked_at_half_and_at_the_end(bench, done_after):
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'), 600.0, callback=True)
    wishes = ((b"retry-after", b"7"),)
    busy, done = an_answer(b'{"status": "busy"}', headers=wishes), an_answer(b'{"status": "done"}')
    wire = Scripted(*([busy] * (1 if done_after == 2 else 0)), busy if done_after is math.inf else done)
    async with bench.asking(wire):
        heard, took = await bench.until_over(claim)
    assert (len(heard), took) == ((1, 300.0) if done_after == 1 else (2, 600.0))
    if done_after is math.inf:
        assert (await bench.failure(claim))[0] is ErrorType.WAIT_TIMEOUT
    else:
        assert await bench.result(claim) == b'{"status": "done"}'


async def test_trouble_at_the_half_is_not_the_last_word_until_the_end(bench):
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'), 600.0, callback=True)
    async with bench.asking(Scripted(OutboundError("no connection"), an_answer(b'{"status": "done"}'))):
        _, took = await bench.until_over(claim)
    assert took == 305.0


async def test_a_callback_that_came_meanwhile_wins(bench):
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'), callback=True)
    wire = Scripted(an_answer(b'{"status": "done"}'))
    wire.gate.clear()
    async with bench.asking(wire):
        bench.pass_time(300)
        await wire.arrived.acquire()
        await bench.store.waiting.resolve(claim.key, Channel.CALLBACK, a_word(b'"called"'))
        wire.gate.set()
    assert await bench.result(claim) == b'"called"'
    assert bench.ear.heard.empty()


# --- the loop


def at(host: str) -> PollConfig:
    return ASKED.replace(url_template=f"https://{host}.example/{{startResult.body.id}}")


async def test_no_more_than_its_limit_at_once(bench):
    claims = [await bench.wait_for(at(f"h{number}"), an_answer(b'{"id": 7}')) for number in range(7)]
    wire = Scripted(an_answer(b'{"status": "done"}'))
    wire.gate.clear()
    async with bench.asking(wire, limit=4):
        bench.pass_time(5)
        for _ in range(3):
            await wire.arrived.acquire()
        wire.gate.set()
        for _ in claims:
            assert isinstance(await bench.ear.next(), Finished)
    assert wire.most_busy == 3, "a fourth is kept for those who are known to be prompt"


async def test_a_provider_that_hangs_leaves_places_to_the_others(bench):
    wire, slow = Scripted(an_answer(b'{"status": "done"}')), 10
    wire.held = "https://slow.example/"
    wire.gate.clear()
    for _ in range(slow):
        await bench.wait_for(at("slow"), an_answer(b'{"id": 7}'))
    async with bench.asking(wire):
        bench.pass_time(5)
        for _ in range(4):
            await wire.arrived.acquire()
        for number in range(6):
            claim = await bench.wait_for(at(f"other{number}"), an_answer(b'{"id": 7}'))
            bench.pass_time(5)
            assert (await bench.ear.next()).request_id == claim.request_id
        assert wire.most_busy == 4 + 1
        wire.gate.set()
        for _ in range(slow):
            assert isinstance(await bench.ear.next(), Finished)


async def test_providers_that_hang_leave_places_to_one_that_is_prompt(bench):
    """Eight hosts, each with one question: no host has more than its part, and all of them together had everything."""
    wire = Scripted(an_answer(b'{"status": "done"}'))
    async with bench.asking(wire):
        await bench.wait_for(at("prompt"), an_answer(b'{"id": 7}'))
        bench.pass_time(5)
        assert isinstance(await bench.ear.next(), Finished)
        await wire.arrived.acquire()
        wire.held = "https://slow"
        wire.gate.clear()
        for number in range(8):
            await bench.wait_for(at(f"slow{number}"), an_answer(b'{"id": 7}'))
        bench.pass_time(5)
        for _ in range(6):
            await wire.arrived.acquire()
        for _ in range(3):
            claim = await bench.wait_for(at("prompt"), an_answer(b'{"id": 7}'))
            bench.pass_time(5)
            assert (await bench.ear.next()).request_id == claim.request_id
        wire.gate.set()
        for _ in range(8):
            assert isinstance(await bench.ear.next(), Finished)


async def test_a_question_that_is_cancelled_before_it_begins_gives_its_place_back(bench):
    """As when the loop is ended by a defect and begun again."""
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'))
    loop, cancelled = asyncio.get_running_loop(), []

    class Cancelling:
        """A room whose first polls are cancelled: they are made, and never take a step."""

        def __getattr__(self, name):
            return getattr(bench.store.waiting, name)

        async def claim_polls(self, places):
            claimed = await bench.store.waiting.claim_polls(places)
            if not cancelled:
                loop.call_soon(lambda: cancelled.extend(cancel_tasks("poll ")))
            return claimed

    wire = Scripted(an_answer(b'{"status": "done"}'))
    async with bench.asking(wire, room=Cancelling(), limit=1):
        bench.pass_time(5)
        async with asyncio.timeout(10):
            while not cancelled:
                await asyncio.sleep(0)
        await lease_passes(bench.store, bench.clock)
        await bench.store.rescue()
        assert (await bench.ear.next()).request_id == claim.request_id
    assert len(wire.calls) == 1


async def test_an_outage_at_claiming_is_survived(bench, monkeypatch):
    monkeypatch.setattr("queue_middleware.rounds.exponential", lambda number, longest: 0.0)
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'))
    bench.pass_time(5)
    broken = Faulty(bench.store.waiting, "claim_polls", StoreBusy("busy", 1), RuntimeError("odd"))
    async with bench.asking(Scripted(an_answer(b'{"status": "done"}')), room=broken):
        assert [type(await bench.ear.next()) for _ in range(4)] == [Outage, Outage, Recovered, Finished]
    assert await bench.result(claim) == b'{"status": "done"}'


@pytest.mark.parametrize("verb", ["resolve", "settle_poll"])
async def test_an_outage_at_settling_throws_nothing_away(bench, monkeypatch, verb):
    monkeypatch.setattr("queue_middleware.rounds.exponential", lambda number, longest: 0.0)
    await bench.wait_for(ASKED, an_answer(b'{"id": 7}'))
    bench.pass_time(5)
    broken = Faulty(bench.store.waiting, verb, StoreBusy("busy", 1), StoreBusy("busy", 1))
    wire = Scripted(an_answer(b'{"status": "done"}' if verb == "resolve" else b"{}"))
    async with bench.asking(wire, room=broken):
        last = Finished if verb == "resolve" else Polled
        assert [type(await bench.ear.next()) for _ in range(4)] == [Outage, Outage, Recovered, last]
    assert len(wire.calls) == 1


async def test_what_retention_has_taken_meanwhile_is_let_go(bench):
    await bench.wait_for(ASKED, an_answer(b'{"id": 7}'))
    bench.pass_time(5)
    gone = Faulty(bench.store.waiting, "resolve", UnknownRequest("the request is no longer kept"))
    wire = Scripted(an_answer(b'{"status": "done"}'))
    async with bench.asking(wire, room=gone):
        await wire.arrived.acquire()
    assert bench.ear.heard.empty()


async def test_it_stops_although_the_database_does_not_answer(bench):
    await bench.wait_for(ASKED, an_answer(b'{"id": 7}'))
    bench.pass_time(5)
    broken = Faulty(bench.store.waiting, "resolve", *[StoreBusy("busy", 1)] * 99)
    async with bench.asking(Scripted(an_answer(b'{"status": "done"}')), room=broken):
        assert isinstance(await bench.ear.next(), Outage)


async def test_a_question_under_way_is_waited_for_then_given_up(bench):
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'))
    wire = Scripted(an_answer(b'{"status": "done"}'))
    wire.gate.clear()
    async with bench.asking(wire, grace=0.01) as poller:
        bench.pass_time(5)
        await wire.arrived.acquire()
        poller.stop()
        poller.stop()  # repeatable
    assert wire.busy == 0
    assert (await bench.store.job(claim.request_id)).state is JobState.WAITING
    wire.gate.set()
    await lease_passes(bench.store, bench.clock)
    await bench.store.rescue()
    async with bench.asking(wire):
        assert isinstance(await bench.ear.next(), Finished)
    assert await bench.result(claim) == b'{"status": "done"}'


async def test_one_that_takes_too_long_is_trouble(bench, monkeypatch):
    monkeypatch.setattr("queue_middleware.poller.LONGEST", 0.02)
    await bench.wait_for(ASKED, an_answer(b'{"id": 7}'))
    wire = Scripted(an_answer(b'{"status": "done"}'))
    wire.gate.clear()
    async with bench.asking(wire):
        bench.pass_time(5)
        assert (await bench.ear.next()).reason == "no whole answer within 0.02 s"
        wire.gate.set()


async def test_a_callback_url_that_the_provider_repeats_is_not_kept(bench):
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'), callback=True)
    assert claim.task is not None
    secret = bench.ids.callback_of(claim.task)
    assert secret is not None
    body = b'{"status": "broken", "error": "nobody at %s"}' % secret.encode()
    async with bench.asking(Scripted(an_answer(body))):
        await bench.until_over(claim)
    assert await bench.failure(claim) == (ErrorType.PROVIDER_FAILED, f"nobody at {'*' * 64}")
    response = (await bench.store.waiting.record(claim.request_id)).response
    assert response is not None
    assert secret.encode() not in response.body


async def test_nor_in_headers_but_a_redirect_that_holds_it_is_followed(bench):
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'), callback=True)
    secret = bench.ids.callback_of(claim.task)
    elsewhere = b"http://127.0.0.1:9/status?hook=" + secret.encode()
    moved = StoredResponse(302, ((b"location", elsewhere),), b"")
    done = StoredResponse(200, ((b"link", b"<%s>" % elsewhere),), b'{"status": "done"}')
    wire = Scripted(moved, done)
    async with bench.asking(wire):
        await bench.until_over(claim)
    assert wire.calls[1][0] == elsewhere.decode()
    response = (await bench.store.waiting.record(claim.request_id)).response
    assert response.headers == ((b"link", b"<http://127.0.0.1:9/status?hook=%s>" % (b"*" * 64)),)


@pytest.mark.parametrize("headers", [((b"location", b"https://evil.example/"),), ()])
async def test_one_who_is_to_call_back_need_not_be_one_who_can_be_asked(bench, headers):
    """A question that is impossible at half of the time must not throw the callback away."""
    claim = await bench.wait_for(FOLLOW, StoredResponse(202, headers, b""), 600.0, callback=True)
    async with bench.asking():
        bench.pass_time(300)
        assert isinstance(await bench.ear.next(), PollFailed)
        assert (await bench.store.job(claim.request_id)).state is JobState.WAITING
        await bench.store.waiting.resolve(claim.key, Channel.CALLBACK, a_word(b'"called"'))
    assert await bench.result(claim) == b'"called"'


async def test_a_first_answer_in_parts_is_read_whole(bench):
    receipt = await bench.store.submit(
        a_job(task=bench.ids.new_task(a_task(callback=False, target="http://127.0.0.1:9/x", poll=ASKED).spec)), start=True
    )
    claim = receipt.claim
    assert claim is not None
    assert claim.task is not None
    assert await bench.store.append(claim, 0, b'{"padding": "')
    assert await bench.store.append(claim, 1, b'x", ')
    last = StoredResponse(200, (), b'"id": 7}', 2)
    assert await bench.store.waiting.conclude(claim, claim.task, last, a_wait(60.0, poll_in=5.0))
    inquiry = Scripted(an_answer(b'{"status": "done"}'))
    async with bench.asking(inquiry):
        await bench.until_over(claim)
    assert [url for url, _ in inquiry.calls] == ["http://127.0.0.1:9/status/7"]


async def test_hop_by_hop_headers_are_not_kept(bench):
    claim = await bench.wait_for(ASKED, an_answer(b'{"id": 7}'))
    headers = ((b"content-type", b"application/json"), (b"connection", b"close"), (b"transfer-encoding", b"chunked"))
    async with bench.asking(Scripted(StoredResponse(200, headers, b'{"status": "done"}'))):
        await bench.until_over(claim)
    response = (await bench.store.result(claim.request_id)).response
    assert response is not None
    assert response.headers == ((b"content-type", b"application/json"),)
