"""Chromium itself: requests that a page of another site sends are refused, and responses that it shows do nothing.

`127.0.0.1` and `localhost` are two sites to a browser. No other name resolves in this browser.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import pytest

from tests.acceptance.servers import Command, serving
from tests.support.provider_server import Call, Reply, providing
from tests.support.queue_client import stored_jobs

REQUIRED = "QUEUE_TESTS_REQUIRE_BROWSER"
"""If this is 1, a missing browser is a failure; otherwise its tests are skipped with the reason."""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.slow


def app() -> Command:
    return lambda port: ["uvicorn", "tests.acceptance.pages:app", "--host", "127.0.0.1", "--port", str(port)]


@pytest.fixture
def browser() -> str:
    if BROWSER is None and os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED} is set, and there is no Chromium", pytrace=False)
    if BROWSER is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    return BROWSER


async def open_page(browser: str, folder: Path, url: str) -> str:
    """The DOM of the page after some seconds of virtual time."""
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1", f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=10000", "--dump-dom", url,
    ]  # fmt: skip

    def run() -> str:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    return await anyio.to_thread.run_sync(run)


@asynccontextmanager
async def other_site(pages: dict[str, str]) -> AsyncIterator[tuple[str, list[Call]]]:
    """Pages at `localhost`, and the requests that were made there."""

    def respond(call: Call) -> Reply:
        page = pages.get(urlsplit(call.target).path)
        return Reply(404) if page is None else Reply(body=page.encode(), headers=(("content-type", "text/html"),))

    async with providing(respond) as site:
        yield site.url.replace("127.0.0.1", "localhost"), site.calls


ATTACK = """<!doctype html><title>attack</title><body>
<img src="{at}/fal/queue/submit/image">
<script src="{at}/fal/queue/submit/script"></script>
<iframe src="{at}/fal/queue/submit/frame"></iframe>
<iframe name="form"></iframe>
<form id="form" action="{at}/fal/queue/submit/form" method="post" target="form"><input name="a" value="b"></form>
<iframe name="task"></iframe>
<form id="task" action="{at}/fal/queue/v1/tasks" method="post" enctype="text/plain" target="task"></form>
<iframe sandbox="allow-scripts" srcdoc="<script>
fetch('{at}/fal/queue/submit/null', {method: 'POST', mode: 'no-cors'})
</script>"></iframe>
<script>
document.getElementById("form").submit();
document.getElementById("task").submit();
fetch("{at}/fal/queue/submit/no-cors", {method: "POST", mode: "no-cors", credentials: "include", body: "x"});
fetch("{at}/fal/queue/submit/cors", {method: "POST", body: "x"}).catch(() => 0);
navigator.sendBeacon("{at}/fal/queue/submit/beacon", "x");
setTimeout(() => { location = "{at}/fal/queue/submit/link" }, 3000);
</script>"""
WAYS = ("image", "script", "frame", "form", "null", "no-cors", "cors", "beacon", "link")


async def test_a_page_of_another_site_submits_nothing(browser: str, tmp_path: Path) -> None:
    async with serving(app(), tmp_path) as server:
        pages = {"/": ATTACK.replace("{at}", server.url)}
        async with other_site(pages) as (site, _):
            shown = await open_page(browser, tmp_path, f"{site}/")
        requests = [line.split() for line in server.lines("requests") if "/fal/queue/" in line]
        assert {path for _, path, *_ in requests} == {*(f"/fal/queue/submit/{way}" for way in WAYS), "/fal/queue/v1/tasks"}, (
            shown
        )
        assert {(site, status) for _, _, site, *_, status in requests} == {("cross-site", "403")}
        assert stored_jobs(server.database) == 0


async def test_a_page_of_the_service_submits_and_reads_the_stream_to_its_end(browser: str, tmp_path: Path) -> None:
    async with serving(app(), tmp_path) as server:
        shown = await open_page(browser, tmp_path, f"{server.url}/")
        assert "received: hello, id 1.end" in shown
        streams = [line.split()[-1] for line in server.lines("requests") if line.split()[1].endswith("/status/stream")]
        assert streams == ["200", "204"]


async def test_an_opened_result_runs_no_script_and_sets_no_cookie(browser: str, tmp_path: Path) -> None:
    async with serving(app(), tmp_path) as server, server.queue() as queue:
        direct = await open_page(browser, tmp_path / "direct", f"{server.url}/result")
        assert "data-ran" in direct  # what it would do as a page of the service
        request_id = await queue.submit("GET", "/result")
        await queue.response(request_id)
        url = f"{server.url}/fal/queue/requests/{request_id}/response"
        shown = await open_page(browser, tmp_path, url)
        assert "a result" in shown
        assert "data-ran" not in shown
        framed = {"/": f'<!doctype html><iframe src="{url}"></iframe><img src="{url}">'}
        async with other_site(framed) as (site, _):
            await open_page(browser, tmp_path, f"{site}/")
        await open_page(browser, tmp_path, f"{server.url}/")
        opened = [line.split() for line in server.lines("requests") if "/response" in line]
        assert {(site, dest) for _, _, site, dest, *_ in opened} >= {
            ("none", "document"),
            ("cross-site", "iframe"),
            ("cross-site", "image"),
        }
        at_home = [line.split() for line in server.lines("requests") if line.startswith("GET / ")]
        assert [cookie for *_, cookie, _ in at_home] == ["-"]
