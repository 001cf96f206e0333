"""The plugin gives the tests of a service separate databases without any configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVICE = """
from queue_middleware import QueueMiddleware
async def application(scope, receive, send): ...
app = QueueMiddleware(application)
other = QueueMiddleware(application, database="data/other.sqlite3", prefix="/other")
"""
TESTS = """
import asyncio, subprocess, sys
from pathlib import Path
from queue_middleware import QueueMiddleware
from service import app, application, other

def run(queue):
    async def main():
        async with queue.running():
            return Path(queue.settings.database)
    return asyncio.run(main())

def test_it_lies_elsewhere():
    for queue in (app, other):
        assert run(queue).exists()
        assert run(queue).parent.name.startswith("queue-tests-")
        Path("folder").write_text(str(run(queue).parent))
    assert run(app) != run(other) != run(QueueMiddleware(application)) != run(QueueMiddleware(application))

def test_what_is_temporary_stays(tmp_path):
    assert run(QueueMiddleware(application, database=tmp_path / "queue.sqlite3")) == (tmp_path / "queue.sqlite3").resolve()

def test_a_process_of_its_own_does_the_same():
    code = "import service; print(service.app.settings.database)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == app.settings.database
"""
LAZY = """
import sys
def test_nothing_of_the_queue_was_imported():
    assert [name for name in sys.modules if name.startswith("queue_middleware")] == ["queue_middleware"] + [
        "queue_middleware." + name for name in ("testing", "testing.isolation", "testing.pytest_plugin")]
    assert not {"aiosqlite", "httpx", "starlette", "nacl", "msgspec"} & set(sys.modules)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pytest.ini").write_text("[pytest]\n")
    (project / "service.py").write_text(SERVICE)
    return project


def pytest_in(project: Path, **environ: str) -> str:
    """The output of pytest. Only this project's plugin is loaded, so that imports of others do not matter."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("QUEUE_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "queue_middleware.testing.pytest_plugin"],
        cwd=project,
        env={**variables, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(project), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return f"{done.returncode}: {done.stdout}{done.stderr}"


def files_in(project: Path) -> list[str]:
    return sorted(path.name for path in project.rglob("*sqlite3*"))


@pytest.mark.slow
def test_the_file_of_the_service_is_not_touched(project: Path) -> None:
    (project / "conftest.py").write_text("import service\n")  # before any hook of a session
    (project / "test_service.py").write_text(TESTS)
    assert pytest_in(project, QUEUE_DATABASE="dev.sqlite3").startswith("0: ")
    assert files_in(project) == []
    assert not Path((project / "folder").read_text()).exists(), "the database is removed at the end"


@pytest.mark.slow
def test_the_file_of_the_service_is_used_if_configured(project: Path) -> None:
    (project / "test_service.py").write_text(
        "from service import app\ndef test_it(): assert app.settings.database.endswith('project/queue.sqlite3')\n"
    )
    assert pytest_in(project, QUEUE_TESTS_USE_REAL_DATABASE="1").startswith("0: ")


@pytest.mark.slow
def test_a_run_that_has_no_queue_does_not_import_one(project: Path) -> None:
    (project / "test_nothing.py").write_text(LAZY)
    assert pytest_in(project).startswith("0: ")


def test_pytest_loads_the_plugin(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.has_plugin("queue_middleware")
