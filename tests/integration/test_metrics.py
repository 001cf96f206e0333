"""The metrics of a running queue: who may read them, what they show, and what they never show."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from queue_middleware import current_job
from queue_middleware.jobs.job_list import JobFilter
from queue_middleware.observability.metrics.catalog import CATALOG, PREFIX
from tests.support.gated_service import GatedService
from tests.support.queue_client import eventually
from tests.support.tools import tool

TOKEN = "operator-token-0123456789"
OPERATOR = {"authorization": f"Bearer {TOKEN}"}
SECRET = "planted-secret"
Samples = dict[str, float]


class Service(GatedService):
    """Responds with the status that the query names."""

    def __init__(self, database: Path, **options: Any) -> None:
        super().__init__(database, paths="/items/*, /b", concurrency=2, **{"admin": TOKEN, "metrics": True, **options})

    async def work(self, request: Request) -> Response:
        for _ in range(int(request.query_params.get("lines", 0))):
            current_job.log("x" * 100)
        return PlainTextResponse(SECRET, int(request.query_params.get("status", 200)))

    async def scrape(self, queue: Any, **headers: str) -> Response:
        return await queue.client.get("/fal/queue/metrics", headers={**OPERATOR, **headers})

    async def stored(self) -> None:
        """Everything that was counted is stored."""
        await self.app._runtime.services.stores.metrics.close()

    async def samples(self, queue: Any) -> Samples:
        await self.stored()
        return samples(await self.scrape(queue))


def samples(response: Any) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name.removeprefix(PREFIX)}{{{labels}}}"] = sample.value
    return found


async def test_a_request_is_counted_from_its_submission_to_its_end(database: Path) -> None:
    service = Service(database)
    async with service.queue() as queue:
        await queue.run("POST", "/items/1")
        await queue.run("POST", "/items/2?status=500")
        found = await service.samples(queue)
    assert found["requests_submitted_total{route=/items/*}"] == 2
    assert found["requests_finished_total{outcome=2xx,route=/items/*}"] == 1
    assert found["requests_finished_total{outcome=5xx,route=/items/*}"] == 1
    assert found["attempts_total{ending=responded,route=/items/*}"] == 2
    for histogram in ("wait_seconds", "attempt_seconds", "response_bytes"):
        assert found[f"{histogram}_count{{route=/items/*}}"] == 2
    assert found["request_seconds_count{outcome=2xx,route=/items/*}"] == 1
    assert found["response_bytes_sum{route=/items/*}"] == 2 * len(SECRET)
    assert found["processes{}"] == 1
    assert found["slots{}"] == 2
    assert found["queue_limit{}"] == 10_000
    assert found["database_bytes{part=main}"] > 0
    assert found["webhooks_given_up_total{}"] == 0
    assert [name for name in found if name.startswith("build_info")]


async def test_every_metric_of_the_catalog_is_shown_in_both_formats(database: Path) -> None:
    service = Service(database)
    async with service.queue() as queue:
        text, openmetrics = await service.scrape(queue), await service.scrape(queue, accept="application/openmetrics-text")
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=")
    for metric in CATALOG:
        assert f"# HELP {metric.full_name} {metric.help}\n" in text.text
    assert openmetrics.text.endswith("# EOF\n")


@pytest.mark.parametrize("version", ["abc", "1..", "9" * 5000])
async def test_an_unreadable_version_is_not_an_error(version: str, database: Path) -> None:
    service = Service(database)
    async with service.queue() as queue:
        response = await service.scrape(queue, accept=f"application/openmetrics-text; version={version}")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")


async def test_only_operators_may_read_them(database: Path) -> None:
    service = Service(database)
    async with service.queue() as queue:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            response = await queue.client.get("/fal/queue/metrics", headers=headers)
            assert response.status_code == 401
            assert "requests" not in response.text
        assert (await queue.client.post("/fal/queue/metrics", headers=OPERATOR)).status_code == 405
        assert (await queue.client.head("/fal/queue/metrics", headers=OPERATOR)).status_code == 200


async def test_without_operators_there_is_no_such_route(database: Path) -> None:
    service = Service(database, admin=None)
    async with service.queue() as queue:
        assert (await queue.client.get("/fal/queue/metrics")).status_code == 404


@pytest.mark.parametrize("api_keys", [None, "client:key-of-a-client"])
async def test_with_metrics_public_everyone_may_read_them(database: Path, api_keys: str | None) -> None:
    keys = {} if api_keys is None else {"api_keys": api_keys}
    service = Service(database, admin=None, metrics_public=True, **keys)
    async with service.queue() as queue:
        assert (await queue.client.get("/fal/queue/metrics", headers={})).status_code == 200


async def test_without_metrics_nothing_is_counted(database: Path) -> None:
    service = Service(database, metrics=False)
    async with service.queue() as queue:
        await queue.run("POST", "/items/1")
        assert (await service.scrape(queue)).status_code == 404
        stored = await service.app._runtime.services.stores.metrics.read()
    assert not [row for row in stored.rows if row[0].endswith("_total")]


async def test_without_the_extra_the_response_names_it(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(database)
    monkeypatch.setitem(__import__("sys").modules, "queue_middleware.observability.metrics.exposition", None)
    async with service.queue() as queue:
        response = await service.scrape(queue)
        assert response.status_code == 501
        assert "queue-middleware[metrics]" in response.json()["detail"]
        with pytest.raises(ImportError):
            service.app.collector()


async def test_a_registry_of_the_application_has_the_metrics(database: Path) -> None:
    service = Service(database)
    registry = prometheus_client.CollectorRegistry()
    registry.register(service.app.collector())
    own = prometheus_client.Counter("own", "Of the application.", registry=registry)
    own.inc()
    assert b"own_total 1.0" in prometheus_client.generate_latest(registry)  # the queue does not run yet
    async with service.queue() as queue:
        await queue.run("POST", "/items/1")
        await service.stored()
        text = prometheus_client.generate_latest(registry).decode()
    assert 'queue_middleware_requests_submitted_total{route="/items/*"} 1.0' in text
    assert "queue_middleware" not in prometheus_client.generate_latest(registry).decode()


async def test_a_request_that_is_cancelled_before_its_start_has_its_route(database: Path) -> None:
    service = Service(database)
    async with service.queue() as queue:
        await service.app.pause("/b")
        request_id = await queue.submit("POST", "/b")
        assert (await service.samples(queue))["requests{route=/b,state=queued}"] == 1
        await service.app._runtime.cancel(request_id)
        await service.app.resume("/b")
        found = await service.samples(queue)
    assert found["requests_finished_total{outcome=cancelled,route=/b}"] == 1
    assert found["request_failures_total{error_type=client_cancelled,route=/b}"] == 1
    assert found["operator_actions_total{action=pause}"] == 1


async def test_requests_that_are_cancelled_together_are_counted(database: Path) -> None:
    service = Service(database)
    async with service.queue() as queue:
        await service.app.pause("/b")
        for _ in range(3):
            await queue.submit("POST", "/b")
        assert (await service.app.cancel(JobFilter(route="/b"))).done == 3
        await service.app.resume("/b")
        found = await service.samples(queue)
    assert found["requests_finished_total{outcome=cancelled,route=/b}"] == 3


async def test_refused_submissions_are_counted_by_their_reason(database: Path) -> None:
    service = Service(database, max_request_body=10, max_queued=1)
    async with service.queue() as queue:
        assert (await queue.client.post("/fal/queue/submit/elsewhere")).status_code == 403
        assert (await queue.client.post("/fal/queue/submit/b", content=b"x" * 11)).status_code == 413
        assert (await queue.client.post("/fal/queue/v1/tasks", content=b"{")).status_code == 400
        await service.app.pause()
        await queue.submit("POST", "/b")
        assert (await queue.client.post("/fal/queue/submit/b")).status_code == 503
        assert (await queue.client.get("/fal/queue/requests/none/status")).status_code == 404  # not a submission
        found = await service.samples(queue)
        await service.app.resume()
    assert {name: value for name, value in found.items() if name.startswith("requests_refused_total") and value} == {
        f"requests_refused_total{{reason={reason}}}": 1 for reason in ("not_allowed", "too_large", "bad_request", "full")
    }


async def test_dropped_log_lines_are_counted(database: Path) -> None:
    service = Service(database, max_logs=1000)
    async with service.queue() as queue:
        await queue.run("POST", "/b?lines=50")
        found = await service.samples(queue)
    assert 30 < found["log_lines_dropped_total{}"] < 50


async def test_what_is_counted_is_stored_without_further_requests(database: Path) -> None:
    service = Service(database)
    async with service.queue() as queue:
        await queue.run("POST", "/items/1")

        async def is_stored() -> bool:
            found = samples(await service.scrape(queue))
            return found.get("requests_finished_total{outcome=2xx,route=/items/*}") == 1

        await eventually(is_stored)


async def test_no_secret_is_shown(database: Path) -> None:
    service = Service(database, observers=[])
    async with service.queue() as queue:
        headers = {"authorization": f"Bearer {SECRET}", "x-fal-webhook-url": f"https://u:{SECRET}@host.test/"}
        await queue.run("POST", f"/items/{SECRET}?{SECRET}=1", headers={"x-secret": SECRET}, content=SECRET)
        await queue.client.post(f"/fal/queue/submit/{SECRET}?{SECRET}", headers=headers, content=SECRET)
        await service.stored()
        text = (await service.scrape(queue)).text
    assert SECRET not in text
    assert TOKEN not in text


async def test_promtool_finds_no_fault(database: Path) -> None:
    promtool = tool("promtool", "prometheus")
    service = Service(database)
    async with service.queue() as queue:
        await queue.run("POST", "/items/1")
        await service.stored()
        text = (await service.scrape(queue)).text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
