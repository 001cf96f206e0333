"""The code in the documentation runs, and its links resolve. `test_reference` checks its tables."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from asgi_lifespan import LifespanManager
from opentelemetry import trace

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")], key=lambda path: path.as_posix()
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def problems(paths: Iterable[Path], find: Callable[[Path], Any]) -> dict[str, Any]:
    """What `find` returns for each of these files, unless that is empty. A test for each file would take longer than `find`."""
    return {name(path): found for path in paths if (found := find(path))}


def blocks(path: Path, language: str) -> list[str]:
    return [code for kind, code in _FENCE.findall(path.read_text()) if kind == language]


WALKED = frozenset({"docs/how-to/django.md", "docs/how-to/test-your-endpoints.md"})
"""Their blocks are files of one project, which `test_walks` creates and runs."""


def python_blocks() -> Iterator[Any]:
    for path in PAGES:
        if name(path) in WALKED:
            continue
        for number, code in enumerate(blocks(path, "python"), start=1):
            yield pytest.param(code, id=f"{name(path)}:{number}")


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate folder for `./queue.sqlite3`, and the environment that the pages assume."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JWKS_URL", "https://service.example.com/fal/queue/.well-known/jwks.json")
    monkeypatch.setenv("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    # A provider of the process would record all that later tests do.
    monkeypatch.setattr(trace, "set_tracer_provider", lambda provider: provider.shutdown())
    return tmp_path


def run_block(code: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Execute a block as the module that a reader would make of it."""
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # FastAPI resolves annotations in the handler's module
    exec(compile(code, "page.py", "exec"), module.__dict__)
    return module


# --- code


@pytest.mark.parametrize("code", list(python_blocks()))
def test_every_python_block_runs_unchanged(code: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_block(code, monkeypatch)
    assert not list(own_folder.iterdir()), "nothing is opened or written before the start"


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial/first-queue.md"])
async def test_the_first_application_works_through_its_queue(
    page: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = run_block(blocks(ROOT / page, "python")[0], monkeypatch)
    # The handler's simulated work is not waited for.
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=lambda seconds: asyncio.sleep(0)))
    app = module.app
    async with LifespanManager(app) as manager:
        transport = httpx.ASGITransport(manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.example") as client:
            direct = await client.post("/generate", json={"prompt": "a cat"})
            submitted = (await client.post("/fal/queue/submit/generate", json={"prompt": "a cat"})).json()
            with anyio.fail_after(20):
                while (await client.get(submitted["status_url"])).status_code == 202:
                    await anyio.sleep(0.02)
            response = await client.get(submitted["response_url"])
    assert (own_folder / "queue.sqlite3").exists()
    assert (response.status_code, response.content) == (direct.status_code, direct.content) == (200, direct.content)


def test_the_readme_has_both_commands_on_its_first_screen() -> None:
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:50])
    assert "pip install -e '.[demo]' && python -m examples.fastapi_app.demo" in screen
    assert "pip install -e '.[dev]' && pytest" in screen
    assert len(blocks(ROOT / "README.md", "python")[0].splitlines()) <= 18  # 12 lines of code and the blank lines between them


async def test_the_observer_of_the_page_receives_its_events(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = run_block(blocks(ROOT / "docs/how-to/write-an-observer.md", "python")[0], monkeypatch)
    async with LifespanManager(module.app) as manager:
        transport = httpx.ASGITransport(manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.example") as client:
            submitted = await client.post("/fal/queue/submit/generate", json={})
    assert submitted.status_code == 200
    assert module.submissions.count == 1


async def test_the_admin_routes_of_the_page_refuse_with_the_reason(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = run_block(blocks(ROOT / "docs/how-to/operate.md", "python")[0], monkeypatch)
    async with LifespanManager(module.app) as manager:
        transport = httpx.ASGITransport(manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.example") as client:
            differs = await client.post("/admin/failed/again", params={"route": "/enlarge", "expect": 12})
            unknown = await client.get("/admin/requests/018f3b1e-0000-7000-8000-000000000001")
            again = await client.post("/admin/failed/again", params={"route": "/enlarge", "expect": 0})
    assert (differs.status_code, unknown.status_code) == (409, 404)
    assert "has 0 requests, not 12" in differs.json()["detail"]
    assert again.json() == {"again": 0, "left out": {}}


# --- links


def links(page: Path) -> list[str]:
    """The relative targets of a page."""
    targets = _LINK.findall(_FENCE.sub("", page.read_text()))
    return [target for target in dict.fromkeys(targets) if not re.match(r"[a-z]+:", target)]


def leads_nowhere(page: Path, target: str) -> bool:
    relative, _, anchor = target.partition("#")
    path = (page.parent / relative).resolve() if relative else page
    return not path.exists() or (bool(anchor) and anchor not in anchors(path))


@cache
def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in _HEADING.findall(path.read_text())}


def test_every_relative_link_works() -> None:
    assert sum(len(links(page)) for page in PAGES) > 200
    assert problems(PAGES, lambda page: [target for target in links(page) if leads_nowhere(page, target)]) == {}


@pytest.mark.parametrize("target", ["no-such-page.md", "#no-such-heading", "CONTRIBUTING.md#no-such-heading"])
def test_links_that_lead_nowhere_are_found(target: str) -> None:
    assert leads_nowhere(ROOT / "README.md", target)
    assert not leads_nowhere(ROOT / "README.md", "CONTRIBUTING.md#conventions")


def slug(heading: str) -> str:
    """The anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def reached_from_the_readme() -> set[Path]:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in seen or path.suffix != ".md" or not path.exists():
            continue
        seen.add(path)
        targets = (target.partition("#")[0] for target in links(path))
        waiting.extend((path.parent / target).resolve() for target in targets if target)
    return seen


def test_every_page_of_the_docs_can_be_reached_from_the_readme() -> None:
    assert set(PAGES) - reached_from_the_readme() == set()
