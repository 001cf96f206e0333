"""Pages that build a project: their files are written, and what the pages say is checked with them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from queue_middleware import Settings
from queue_middleware.cli import make_parser
from queue_middleware.cli.flags import variable_of as variable_of_flag
from queue_middleware.cli.reference import leaves
from queue_middleware.option_parsers import parse_seconds
from queue_middleware.settings import option_variable

from .test_docs import PAGES, ROOT, blocks, name

HOW_TO = ROOT / "docs" / "how-to"
_CODE = re.compile(r"^```\w*\n(.*?)^```$|`([^`\n]+)`", re.MULTILINE | re.DOTALL)


def write_files(page: str, directory: Path) -> list[str]:
    """Write every Python block that begins with a file name; a later block replaces an earlier one."""
    written = []
    for code in blocks(HOW_TO / page, "python"):
        first = code.partition("\n")[0]
        assert re.fullmatch(r"# [\w/]+\.py", first), f"{page}: a block names its file"
        path = directory / first.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        written.append(first.removeprefix("# "))
    return written


def run(directory: Path, *command: str) -> str:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("QUEUE_", "PYTEST_", "DJANGO_"))}
    environ |= {"PYTHONPATH": str(ROOT / "src"), "QUEUE_MIN_FREE_DISK": "0"}
    done = subprocess.run(
        [sys.executable, *command], cwd=directory, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_tests_on_the_page_about_testing_pass_and_leave_no_files(tmp_path: Path) -> None:
    written = write_files("test-your-endpoints.md", tmp_path)
    assert {"main.py", "conftest.py"} < set(written)
    output = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    tests = sum(len(re.findall(r"def test_", (tmp_path / file).read_text())) for file in written)
    assert re.search(rf"^{tests} passed", output, re.MULTILINE), output
    assert not list(tmp_path.glob("queue.sqlite3*"))


DRIVE = """
import asyncio, sys
import httpx
from asgi_lifespan import LifespanManager
from mysite.asgi import application

async def main() -> None:
    async with LifespanManager(application) as manager:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(manager.app), base_url="http://localhost") as client:
            direct = await client.post("/generate?prompt=a+dog")
            submitted = (await client.post("/fal/queue/submit/generate?prompt=a+dog")).json()
            await client.get(submitted["status_url"] + "/stream")
            replayed = await client.get(submitted["response_url"])
            assert (direct.status_code, direct.content) == (replayed.status_code, replayed.content) == (200, direct.content)
            print(replayed.text, (await client.get(submitted["status_url"] + "?logs=1")).json()["logs"][0]["message"])

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("asgi", [0, 1], ids=["plain", "with-static-files"])
def test_the_project_on_the_page_about_django_works_through_its_queue(asgi: int, tmp_path: Path) -> None:
    run(tmp_path, "-m", "django", "startproject", "mysite", ".")
    write_files("django.md", tmp_path)
    variants = [code for code in blocks(HOW_TO / "django.md", "python") if code.startswith("# mysite/asgi.py")]
    (tmp_path / "mysite" / "asgi.py").write_text(variants[asgi])
    run(tmp_path, "manage.py", "check")
    (tmp_path / "drive.py").write_text(DRIVE)
    assert run(tmp_path, "drive.py").strip() == '{"picture": "a picture of a dog"} 50% painting'


# --- commands, variables, files


def code_of(path: Path) -> list[str]:
    """The lines of all code, in blocks and in backticks."""
    return [line for block, word in _CODE.findall(path.read_text()) for line in (block or word).splitlines()]


def commands(program: str) -> list[tuple[str, str]]:
    """Page and command, up to a comment or the next command."""
    call = re.compile(rf"(?:^|\s|&& ){program} (?!\|)([^#|&]*--[^#|&]*)")
    return [(name(path), match[1]) for path in PAGES for line in code_of(path) if (match := call.search(line))]


@pytest.mark.slow
@pytest.mark.parametrize("program", ["uvicorn", "gunicorn", "hypercorn", "fastapi"])
def test_documented_options_of_servers_exist(program: str) -> None:
    if program == "fastapi":
        pytest.importorskip("fastapi_cli")
    arguments = [(program, "run", "--help"), (program, "dev", "--help")] if program == "fastapi" else [(program, "--help")]
    help_texts = "".join(run(ROOT, "-m", *line) for line in arguments)
    named = commands(program)
    assert named
    for page, command in named:
        for option in re.findall(r"(?<!\S)--[a-z-]+", command):
            assert re.search(rf"{option}(?![a-z-])", help_texts), f"{page}: {program} has no {option}"


def test_every_documented_variable_is_an_option() -> None:
    known = {option_variable(option.name) for option in fields(Settings)}
    known |= {
        "QUEUE_",
        "QUEUE_TESTS",
        "QUEUE_TESTS_REQUIRE_CLIENTS",
        "QUEUE_TESTS_REQUIRE_BROWSER",
        "QUEUE_TESTS_REQUIRE_TOOLS",
        "QUEUE_TESTS_USE_REAL_DATABASE",
    }
    service = (ROOT / "src/queue_middleware/cli/service.py").read_text()
    known |= set(re.findall(r'environ\.get\("(QUEUE_[A-Z_]+)"\)', service))
    flags = {flag for leaf in leaves(make_parser()) for action in leaf._actions for flag in action.option_strings}
    known |= set(map(variable_of_flag, flags))
    for path in PAGES:
        named = set(re.findall(r"\bQUEUE_[A-Z_]*", path.read_text()))
        assert named <= known, f"{name(path)}: {named - known}"


def test_documented_timeouts_of_gunicorn_are_longer_than_a_shutdown() -> None:
    shutdown = Settings().shutdown_timeout
    named = [command for page, command in commands("gunicorn") if page == "docs/how-to/servers.md"]
    assert len(named) == 2
    for command in named:
        limits = {option: float(value) for option, value in re.findall(r"--([a-z-]+) (\d+)(?!\S)", command)}
        assert limits["timeout"] > 2 * shutdown + 5
        assert limits["graceful-timeout"] > shutdown + 5


def compose() -> dict[str, Any]:
    (text,) = blocks(HOW_TO / "docker.md", "yaml")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def dockerfile() -> list[tuple[str, str]]:
    (text,) = blocks(HOW_TO / "docker.md", "dockerfile")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_compose_file_keeps_the_folder_and_allows_time_to_stop() -> None:
    content = compose()
    (service,) = content["services"].values()
    database = dict(rest.split("=", 1) for word, rest in dockerfile() if word == "ENV")["QUEUE_DATABASE"]
    (volume,) = service["volumes"]
    source, _, target = volume.partition(":")
    assert source in content["volumes"]
    assert Path(database).parent == Path(target)
    settings = Settings.load({}, service["environment"])
    assert parse_seconds(service["stop_grace_period"]) > 2 * settings.shutdown_timeout + 5
    assert all(isinstance(value, str) for value in service["environment"].values())


def test_the_dockerfile_is_valid() -> None:
    instructions = dockerfile()
    assert {word for word, _ in instructions} <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "ENV", "EXPOSE", "CMD"}
    steps = [word for word, _ in instructions]
    assert steps[0] == "FROM"
    # The process is the server itself, which receives the signals; and it does not run as root.
    assert dict(instructions)["CMD"].startswith('["uvicorn", ')
    assert steps.index("USER") < steps.index("CMD")


def test_toml_blocks_are_valid() -> None:
    found = [code for path in PAGES for code in blocks(path, "toml")]
    assert found
    for code in found:
        tomllib.loads(code)
