import asyncio
import subprocess
import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from queue_middleware import QueueMiddleware
from queue_middleware.observability.metrics.catalog import CATALOG
from tests.support.queue_client import connected
from tests.support.tools import tool


async def work(request: Request) -> JSONResponse:
    return JSONResponse({})


async def run_service(database: Path) -> None:
    """A service that has processed two requests and has stopped."""
    app = QueueMiddleware(Starlette(routes=[Route("/work", work, methods=["POST"])]), database=database, min_free_disk=0)
    async with connected(app) as queue:
        for _ in range(2):
            await queue.run("POST", "/work")


def test_the_numbers_are_printed_while_the_service_is_down(terminal):
    asyncio.run(run_service(terminal.database))
    samples = {
        (sample["name"], *sorted(sample["labels"].items())): sample["value"]
        for sample in terminal.json("metrics", "show", "--database", str(terminal.database))
    }
    assert sum(value for key, value in samples.items() if key[0] == "queue_middleware_requests_submitted_total") == 2
    text = terminal.run("metrics", "show", "--database", str(terminal.database))
    assert all(f"# HELP {metric.full_name}" in text for metric in CATALOG)
    promtool = [tool("promtool", "prometheus"), "check", "metrics"]
    check = subprocess.run(promtool, input=text, text=True, capture_output=True, timeout=60, check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_without_the_extra_the_command_names_it(terminal, monkeypatch):
    asyncio.run(run_service(terminal.database))
    monkeypatch.setitem(sys.modules, "queue_middleware.observability.metrics.exposition", None)
    assert "queue-middleware[metrics]" in terminal.run("metrics", "show", "--database", str(terminal.database), fails=True)


def test_a_database_that_does_not_exist(terminal):
    assert "there is no queue" in terminal.run("metrics", "show", "--database", "missing.sqlite3", fails=True, code=5)
