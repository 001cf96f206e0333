"""Operators find requests, cancel them, start them early, and submit them again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from queue_middleware.errors import (
    BadRequest,
    InvalidWebhook,
    NotEnded,
    NotKept,
    NotRunning,
    SelectionDiffers,
    TooLarge,
    UnknownRequest,
)
from queue_middleware.events import Finished, Operated, Submitted
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.job_list import select
from queue_middleware.jobs.models import CancelOutcome, JobState
from queue_middleware.jobs.timeline import TimelineKind
from tests.support.doubles import EventRecorder
from tests.support.gated_service import GatedService
from tests.support.queue_client import eventually

UNKNOWN = "018f3b1e-0000-7000-8000-000000000001"


class Service(GatedService):
    """Fails on `/a` until it is mended, and remembers its requests. `go` is set from the start."""

    def __init__(self, database: Path, **options: Any) -> None:
        super().__init__(database, paths="/a, /b, /later", **{"keep_requests": "failed", "concurrency": 4, **options})
        self.go.set()
        self.is_broken = True
        self.called: list[tuple[str, bytes, dict[str, str]]] = []

    async def work(self, request: Request) -> Response:
        self.called.append((request.url.path, await request.body(), dict(request.headers)))
        await self.go.wait()
        if request.url.path == "/later" and self.is_broken:
            return PlainTextResponse("later", status_code=503, headers={"retry-after": "3600"})
        return PlainTextResponse("broken" if self.is_broken else "done", status_code=500 if self.is_broken else 200)


def acts(recorder: EventRecorder) -> list[Operated]:
    return [event for event in recorder.events if isinstance(event, Operated)]


async def test_a_failed_request_is_submitted_again_as_a_copy(database: Path) -> None:
    recorder = EventRecorder()
    service = Service(database, observers=[recorder])
    async with service.queue() as queue:
        original = await queue.submit("POST", "/a?n=1", content=b"picture", headers={"x-mark": "one"})
        assert (await queue.response(original)).text == "broken"
        (listed,) = (await service.app.requests(select(failed_only=True, route="/a"))).jobs
        assert listed.job.request_id == original
        service.is_broken = False
        copy = await service.app.replay(original, operator="carol")
        assert (await queue.response(copy)).text == "done"
        assert (await queue.response(original)).text == "broken"
        assert service.called[0][:2] == service.called[1][:2] == ("/a", b"picture")
        assert service.called[1][2]["x-mark"] == "one"
        assert (await service.app.request(original)).copies == (copy,)
        assert (await service.app.request(copy)).original == original
        kinds = [entry.kind for entry in await service.app.timeline(original)]
        assert (kinds[0], TimelineKind.COPIED in kinds, TimelineKind.OPERATED in kinds) == (TimelineKind.SUBMITTED, True, True)
        assert [act.target for act in await service.app.audit()] == [original]
    assert acts(recorder) == [Operated("carol", Action.REPLAY, original, 1)]
    assert [event.request_id for event in recorder.events if isinstance(event, Submitted)] == [original, copy]


async def test_a_copy_can_have_another_body_other_headers_and_no_webhook(database: Path) -> None:
    service = Service(database, outbound_allow="127.0.0.1", max_request_body=100)
    async with service.queue() as queue:
        hook = {"fal_webhook": "http://127.0.0.1:9/"}
        original = await queue.submit("POST", "/a", content=b"picture", headers={"x-mark": "one", "x-kept": "1"}, params=hook)
        await queue.response(original)
        copy = await service.app.replay(original, body=b"larger picture", headers={"X-Mark": "two"}, webhook=None)
        await queue.response(copy)
        _, body, headers = service.called[-1]
        assert (body, headers["x-mark"], headers["x-kept"], headers["content-length"]) == (b"larger picture", "two", "1", "14")
        assert (await service.app.request(copy)).webhook_host is None
        assert (await service.app.request(original)).webhook_host == "127.0.0.1:9"
        again = await service.app.replay(copy, webhook="http://127.0.0.1:10/x?key=secret")
        assert (await service.app.request(again)).webhook_host == "127.0.0.1:10"
        for error, changes in (
            (BadRequest, {"headers": {"a b": "c"}}),
            (BadRequest, {"headers": {"x-mark": "a\r\nb: c"}}),
            (BadRequest, {"headers": {"Content-Length": "3"}}),
            (BadRequest, {"operator": ""}),
            (InvalidWebhook, {"webhook": "ftp://127.0.0.1/"}),
            (TooLarge, {"body": b"x" * 101}),
        ):
            with pytest.raises(error):
                await service.app.replay(original, **changes)  # type: ignore[call-overload]


async def test_what_cannot_be_submitted_again(database: Path) -> None:
    service = Service(database)
    service.is_broken = False
    async with service.queue() as queue:
        succeeded = await queue.submit("POST", "/a")
        await queue.response(succeeded)
        with pytest.raises(NotKept):
            await service.app.replay(succeeded)
        service.go.clear()
        running = await queue.submit("POST", "/a")
        with pytest.raises(NotEnded):
            await service.app.replay(running)
        with pytest.raises(UnknownRequest):
            await service.app.replay(UNKNOWN)
        with pytest.raises(BadRequest):
            await service.app.replay("nonsense")
        service.go.set()


async def test_all_that_failed_are_submitted_again_in_their_order(database: Path) -> None:
    recorder = EventRecorder()
    service = Service(database, observers=[recorder], concurrency=1)
    async with service.queue() as queue:
        ids = [await queue.submit("POST", "/a", content=b"%d" % number) for number in range(5)]
        without = await queue.submit("POST", "/a", headers={"x-fal-store-io": "0"})
        for request_id in (*ids, without):
            await queue.response(request_id)
        service.is_broken = False
        service.called.clear()
        wanted = select(failed_only=True, route="/a")
        with pytest.raises(SelectionDiffers, match="has 6 requests, not 5"):
            await service.app.replay(wanted, expect=5)
        assert await service.app.audit() == []
        report = await service.app.replay(wanted, expect=6, operator="carol")
        assert (report.selected, report.done, report.left_out) == (6, 5, {"NotKept": 1})
        assert list(report.copies) == ids
        for copy in report.copies.values():
            assert (await queue.response(copy)).text == "done"
        assert [body for _, body, _ in service.called] == [b"0", b"1", b"2", b"3", b"4"]
    assert acts(recorder) == [Operated("carol", Action.REPLAY, '{"route":"/a","failed_only":true}', 5)]


async def test_requests_are_cancelled_by_id_and_by_filter(database: Path) -> None:
    recorder = EventRecorder()
    service = Service(database, observers=[recorder], concurrency=1)
    service.go.clear()
    async with service.queue() as queue:
        running, first, second = [await queue.submit("POST", "/a") for _ in range(3)]
        other = await queue.submit("POST", "/b")
        assert await service.app.cancel(first, operator="carol") is CancelOutcome.CANCELLED
        assert await service.app.cancel(first) is CancelOutcome.FINISHED
        with pytest.raises(SelectionDiffers):
            await service.app.cancel(select(route="/a"), expect=3)
        report = await service.app.cancel(select(route="/a"), expect=2)
        assert (report.selected, report.done, report.left_out) == (2, 2, {})
        await eventually(lambda: queue.response(running))
        assert (await service.app.request(second)).job.state is JobState.CANCELLED
        assert (await service.app.request(other)).job.state is not JobState.CANCELLED
        assert (await service.app.cancel(select(states=["completed"]))).selected == 0
        service.go.set()
        await queue.response(other)
    assert [(act.action, act.target, act.count) for act in acts(recorder)] == [
        (Action.CANCEL, first, 1),
        (Action.CANCEL, '{"route":"/a"}', 2),
    ]
    ended = [event.request_id for event in recorder.events if isinstance(event, Finished)]
    assert sorted(ended) == sorted([running, first, second, other])


async def test_a_running_request_that_is_cancelled_ends_by_itself(database: Path) -> None:
    service = Service(database)
    service.go.clear()
    async with service.queue() as queue:
        running = await queue.submit("POST", "/a")
        await eventually(lambda: bool(service.called))
        assert await service.app.cancel(running) is CancelOutcome.RUNNING
        assert (await queue.response(running)).status_code == 499
        service.go.set()


async def test_delayed_requests_start_early(database: Path) -> None:
    recorder = EventRecorder()
    service = Service(database, observers=[recorder])
    async with service.queue() as queue:
        ids = [await queue.submit("POST", "/later") for _ in range(3)]

        async def delayed() -> bool:
            return len((await service.app.requests(select(states=["delayed"]))).jobs) == 3

        await eventually(delayed)
        service.is_broken = False
        assert await service.app.run_now(ids[0], operator="carol")
        assert (await queue.response(ids[0])).text == "done"
        assert not await service.app.run_now(ids[0])
        report = await service.app.run_now(select(route="/later"), expect=2)
        assert (report.selected, report.done) == (2, 2)
        for request_id in ids[1:]:
            assert (await queue.response(request_id)).text == "done"
        endings = [entry for entry in await service.app.timeline(ids[0]) if entry.kind is TimelineKind.ATTEMPT_ENDED]
        assert [(entry.data["ending"], entry.data["status"]) for entry in endings] == [("retried", 503)]
    assert [(act.action, act.count) for act in acts(recorder)] == [(Action.RUN_NOW, 1), (Action.RUN_NOW, 2)]


async def test_a_copy_of_a_task_is_a_task_with_secret_ids_of_its_own(database: Path) -> None:
    service = Service(database)
    async with service.queue() as queue:
        original = await queue.submit("POST", "/a", content=b'{"url": "{callback_url}"}')
        assert (await queue.response(original)).text == "broken"
        copy = await service.app.replay(original)
        assert (await queue.response(copy)).text == "broken"
    (_, one, _), (_, other, _) = service.called
    assert one != other
    assert b"{callback_url}" not in one + other


async def test_lists_have_pages_and_conditions(database: Path) -> None:
    service = Service(database)
    async with service.queue() as queue:
        ids = [await queue.submit("POST", "/a") for _ in range(3)]
        for request_id in ids:
            await queue.response(request_id)
        first = await service.app.requests(limit=2)
        assert [one.job.request_id for one in first.jobs] == ids[:0:-1]
        rest = await service.app.requests(after=first.next, limit=2)
        assert [one.job.request_id for one in rest.jobs] == ids[:1]
        hour = timedelta(hours=1)
        now = datetime.now(UTC)
        assert len((await service.app.requests(select(since=now - hour, until=now + hour, statuses=[500]))).jobs) == 3
        assert not (await service.app.requests(select(since=now + hour))).jobs
    for wrong in ({"states": ["gone"]}, {"error_type": "gone"}, {"since": datetime(2027, 1, 1)}):
        with pytest.raises(BadRequest):
            select(**wrong)  # type: ignore[arg-type]


async def test_the_methods_need_a_running_queue(database: Path) -> None:
    app = Service(database).app
    for call in (app.requests(), app.request(UNKNOWN), app.timeline(UNKNOWN), app.cancel(UNKNOWN), app.replay(UNKNOWN)):
        with pytest.raises(NotRunning):
            await call
    with pytest.raises(NotRunning):
        await app.run_now(select())
