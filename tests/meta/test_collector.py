"""How to shorten the pauses of the garbage collector, which the middleware itself never changes: the page on production."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI

from queue_middleware import QueueMiddleware
from tests.acceptance.servers import gunicorn, has_gunicorn_asgi, serving, uvicorn_worker

from .test_docs import ROOT, blocks, run_block

PAGE = ROOT / "docs/how-to/run-in-production.md"
LIFESPAN, GUNICORN_FILE = [code for code in blocks(PAGE, "python") if "gc.freeze()" in code]


@pytest.fixture
def collector() -> Iterator[None]:
    """Give the test a collector of which nothing is frozen, and restore that of the test run."""
    threshold = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.set_threshold(*threshold)
    gc.freeze()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def served(app: FastAPI) -> tuple[int, int]:
    """What the application has frozen and its threshold, after it has started and run one request through the queue."""
    async with LifespanManager(app) as manager:
        transport = httpx.ASGITransport(manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.example") as client:
            assert (await client.post("/fal/queue/submit/work")).status_code == 200
        return gc.get_freeze_count(), gc.get_threshold()[0]


async def test_the_lifespan_of_the_page_freezes_what_exists(collector: None, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, threshold = await served(run_block(LIFESPAN, monkeypatch).app)
    assert frozen > 10_000
    assert threshold == 20_000


async def test_the_middleware_does_not_change_the_collector(collector: None) -> None:
    app, threshold = FastAPI(), gc.get_threshold()[0]
    QueueMiddleware.attach(app)
    assert await served(app) == (0, threshold)


@pytest.mark.slow
@pytest.mark.parametrize(
    "worker_class",
    [
        pytest.param(uvicorn_worker(), id="uvicorn"),
        pytest.param("asgi", marks=pytest.mark.skipif(not has_gunicorn_asgi(), reason="this gunicorn has no ASGI worker")),
    ],
)
async def test_the_file_of_the_page_changes_the_collector_of_each_worker(worker_class: str, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(GUNICORN_FILE)
    async with serving(gunicorn("--worker-class", worker_class, "--workers", "2"), tmp_path, workers=2) as server:
        for _ in range(10):
            async with server.client() as client:
                frozen, threshold = (await client.get("/collector")).json()
            assert frozen > 10_000
            assert threshold == 20_000
        assert server.complaints() == []
