"""Checks of the documentation: its code runs, its options are the real ones, its links work."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import httpx
import msgspec
import pytest
from asgi_lifespan import LifespanManager

from queue_middleware import QueueMiddleware, Settings, cli, errors
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.receivers import fastapi, flask
from queue_middleware.tasks.polling.config import render_poll_config
from queue_middleware.tasks.polling.providers import PROVIDERS
from queue_middleware.verify import VerifiedWebhook, WebhookVerifier
from queue_middleware.webhooks.signing.keyring import RULES

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")], key=lambda path: path.as_posix()
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


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


# --- options


def documented_options() -> dict[str, tuple[str, str]]:
    text = (ROOT / "docs/reference/options.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+?) \| .+ \|$", text, re.MULTILINE)
    return {option: (variable, default.strip("`")) for option, variable, default in rows}


def test_every_option_is_documented_and_every_documented_option_exists() -> None:
    assert list(documented_options()) == [option.name for option in fields(Settings)]


@pytest.mark.parametrize(
    ("option", "documented"), list(documented_options().items()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_documented_variable_and_default_are_the_real_ones(option: str, documented: tuple[str, str]) -> None:
    variable, default = documented
    expected = getattr(Settings(), option)
    assert variable == f"QUEUE_{option.removeprefix('queue_').upper()}"
    if default in ("none", "all"):
        assert expected in (None, ())
    else:
        # The environment's own parser reads the page: each documented value could be set in the environment.
        assert getattr(Settings.load({}, {variable: default}), option) == expected


# --- errors


def test_every_error_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+|-) \|", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE)
    real = {
        kind.__name__: str(kind.status)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.QueueError) and not kind.__name__.startswith("_")
    }
    documented = dict(rows)
    assert documented.keys() == real.keys()
    statuses = {kind: status for kind, status in documented.items() if status != "-"}
    assert statuses == {kind: real[kind] for kind in statuses}


# --- links


def links() -> Iterator[Any]:
    for path in PAGES:
        text = _FENCE.sub("", path.read_text())
        for target in dict.fromkeys(_LINK.findall(text)):
            if not re.match(r"[a-z]+:", target):
                yield pytest.param(path, target, id=f"{name(path)}->{target}")


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_every_relative_link_works(page: Path, target: str) -> None:
    relative, _, anchor = target.partition("#")
    path = (page.parent / relative).resolve() if relative else page
    assert path.exists(), f"{name(page)} links to {target}"
    if anchor:
        assert anchor in {slug(heading) for heading in _HEADING.findall(path.read_text())}, f"{name(page)} links to {target}"


def slug(heading: str) -> str:
    """The anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def reached_from_the_readme() -> set[Path]:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in seen or path.suffix != ".md" or not path.exists():
            continue
        seen.add(path)
        targets = (target.partition("#")[0] for target in _LINK.findall(_FENCE.sub("", path.read_text())))
        waiting.extend((path.parent / target).resolve() for target in targets if target and not re.match(r"[a-z]+:", target))
    return seen


@pytest.mark.parametrize("page", [pytest.param(path, id=name(path)) for path in PAGES])
def test_every_page_of_the_docs_can_be_reached_from_the_readme(page: Path) -> None:
    assert page in reached_from_the_readme()


# --- providers


def test_the_table_of_providers_is_the_real_one() -> None:
    text = (ROOT / "docs/reference/providers.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (\d+) s \| (\d+) s \| `(\S+)` \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == list(PROVIDERS)
    for provider, interval, limit, url, result, ends in rows:
        config = PROVIDERS[provider].poll
        assert (float(interval), float(limit), url) == (config.interval, config.max_duration, config.url_template)
        assert result.strip("`") == (config.result_url_template or config.result_path or "the whole response")
        done, failed = (tuple(re.findall(r"`([^`]+)`", part)) for part in ends.split(";"))
        assert done == tuple(map(str, config.done_values))
        assert failed == config.fail_values


def test_every_field_of_a_poll_config_is_documented_with_its_default() -> None:
    text = (ROOT / "docs/reference/providers.md").read_text().split("## `pollConfig`")[1].split("## ")[0]
    rows = {field: default for names, default in re.findall(r"^\| (`.+?`) \| (.+?) \|", text, re.MULTILINE)
            for field in re.findall(r"`(\w+)`", names)}  # fmt: skip
    shown = render_poll_config(PollConfig("", "", (), ()))
    assert {field for field, default in rows.items() if default == "required"} == {
        "urlTemplate", "statusPath", "doneValues", "failValues",
    }  # fmt: skip
    assert rows.keys() == {info.encode_name for info in msgspec.structs.fields(PollConfig)}
    for field, default in rows.items():
        if default not in ("required", "none"):
            assert str(shown[field]).lower() in (default.strip('`"'), f"{default}.0")


# --- the command and the receivers


def test_every_command_and_its_options_are_documented() -> None:
    text = (ROOT / "docs/reference/command.md").read_text()
    documented = dict(re.findall(r"^\| `(--\w+)(?: \w+)?` \| (`.+?`) \|", text, re.MULTILINE))
    real: dict[str, list[str]] = {}
    for words, parser in commands(cli.parser()):
        assert f"| `{words}` |" in text
        for action in parser._actions:
            for option in set(action.option_strings) - {"-h", "--help"}:
                real.setdefault(option, []).append(f"`{words.removeprefix('queue-middleware ')}`")
    assert documented == {option: ", ".join(of) for option, of in real.items()}


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something, by its words."""
    inner = [choice for action in parser._actions if isinstance(action.choices, dict) for choice in action.choices.values()]
    for choice in inner:
        yield from commands(choice)
    if not inner:
        yield parser.prog, parser


def test_the_documented_key_states_are_the_real_ones() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| .+ \| (yes|no) \| (.+) \|$", (ROOT / "docs/reference/command.md").read_text(), re.MULTILINE
    )
    assert {standing: (published == "yes", signs != "no") for standing, published, signs in rows} == {
        str(standing): (rights.published, rights.signs) for standing, rights in RULES.items()
    }


@pytest.mark.parametrize(
    ("heading", "function"),
    [
        ("WebhookVerifier", WebhookVerifier),
        ("verified_webhook", fastapi.verified_webhook),
        ("verified_webhook", flask.verified_webhook),
    ],
)
def test_every_argument_of_a_receiver_is_documented_with_its_default(heading: str, function: Any) -> None:
    text = (ROOT / "docs/reference/receivers.md").read_text()
    section = text.partition(f"## `{heading}`\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\| .+ \|$", section, re.MULTILINE)
    documented = {argument: default.strip(" `") for argument, default in rows}
    real = inspect.signature(function).parameters.values()
    names = {time.time: "time.time"}
    defaults = {one.name: "" if one.default is one.empty else names.get(one.default, repr(one.default)) for one in real}
    assert documented == defaults


def test_every_attribute_of_a_verified_webhook_is_documented() -> None:
    text = (ROOT / "docs/reference/receivers.md").read_text()
    section = text.partition("## `VerifiedWebhook`\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [attribute.name for attribute in fields(VerifiedWebhook)]


# --- operator methods


def test_every_operator_method_is_documented_with_its_parameters() -> None:
    text = (ROOT / "docs/reference/api.md").read_text().partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| .+ \|$", text, re.MULTILINE)
    documented = {method: re.findall(r"`\**(\w+)`", parameters) for method, parameters in rows}
    public = {method: getattr(QueueMiddleware, method) for method in vars(QueueMiddleware) if not method.startswith("_")}
    real = {method: [name for name in inspect.signature(of).parameters if name != "self"] for method, of in public.items()}
    assert documented == real


def test_every_argument_of_a_selection_is_documented() -> None:
    text = (ROOT / "docs/reference/api.md").read_text().partition("\n## Selection\n")[2]
    selecting = [
        name for name in inspect.signature(QueueMiddleware.deliveries).parameters if name not in ("self", "after", "limit")
    ]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == selecting


async def test_the_observer_of_the_page_receives_its_events(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = run_block(blocks(ROOT / "docs/how-to/write-an-observer.md", "python")[0], monkeypatch)
    async with LifespanManager(module.app) as manager:
        transport = httpx.ASGITransport(manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service.example") as client:
            submitted = await client.post("/fal/queue/submit/generate", json={})
    assert submitted.status_code == 200
    assert module.submissions.count == 1
