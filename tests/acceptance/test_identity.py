"""The name of an application however it is started, and the end of a process that is interrupted twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.queue_client import eventually

from .servers import ROOT, Server, free_port, hypercorn, serving, uvicorn, uvicorn_worker

pytestmark = pytest.mark.slow

WRAPPED = """
from pathlib import Path
from starlette.applications import Starlette
from starlette.routing import Route
from queue_middleware import QueueMiddleware
async def page(request): ...
app = QueueMiddleware(Starlette(routes=[Route("/", page)]), observers=[])
"""
ADDED = """
from starlette.applications import Starlette
from starlette.routing import Route
from queue_middleware import QueueMiddleware
async def page(request): ...
app = Starlette(routes=[Route("/", page)])
app.add_middleware(QueueMiddleware)
"""
MAIN = """
import sys
if __name__ == "__main__":
    import uvicorn
    several = sys.argv[2:]
    uvicorn.run("shop:app" if several else app, host="127.0.0.1", port=int(sys.argv[1]), workers=int((several or [1])[0]))
"""
LOGGED = """
import logging
logging.basicConfig(level=logging.INFO)
"""
WAYS = {
    "uvicorn": ["-m", "uvicorn", "shop:app", "--port", "PORT"],
    "uvicorn-workers": ["-m", "uvicorn", "shop:app", "--port", "PORT", "--workers", "2"],
    "python": ["shop.py", "PORT"],
    "python-workers": ["shop.py", "PORT", "2"],
    "python-m": ["-m", "shop", "PORT"],
    "gunicorn": ["-m", "gunicorn", "shop:app", "--bind", "127.0.0.1:PORT", "--worker-class", uvicorn_worker()],
    "gunicorn-preload": [
        *("-m", "gunicorn", "shop:app", "--bind", "127.0.0.1:PORT", "--worker-class", uvicorn_worker(), "--preload")
    ],
    "hypercorn": ["-m", "hypercorn", "shop:app", "--bind", "127.0.0.1:PORT"],
}


async def started_name(way: Sequence[str], folder: Path) -> str:
    """The name that the first worker logs when it starts."""
    output = folder / f"output-{free_port()}.txt"
    port = str(free_port())
    environ = {name: value for name, value in os.environ.items() if not name.startswith("QUEUE_")}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *(word.replace("PORT", port) for word in way)],
            cwd=folder,
            env={
                **environ,
                "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}",
                "HOME": str(folder),
                "QUEUE_MIN_FREE_DISK": "0",
            },
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return (await eventually(lambda: re.search(r"of the application '(\S+)'", output.read_text()), 30))[1]
    except TimeoutError:
        raise AssertionError(output.read_text()) from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the server leads a session that contains only its workers
        process.wait()


@pytest.mark.parametrize("code", [WRAPPED, ADDED], ids=["wrapped", "added"])
async def test_one_service_has_one_name_and_one_database_under_every_server(code: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(LOGGED + code + MAIN)
    assert {name: await started_name(way, tmp_path) for name, way in WAYS.items()} == dict.fromkeys(WAYS, "shop")
    assert len(list(tmp_path.glob("*.sqlite3"))) == 1


async def test_two_services_in_one_folder_are_distinguished_without_an_option(tmp_path: Path) -> None:
    for name, code in (("shop", WRAPPED), ("admin", ADDED)):
        (tmp_path / f"{name}.py").write_text(LOGGED + code)
    assert await started_name(WAYS["uvicorn"], tmp_path) == "shop"
    with pytest.raises(AssertionError, match="belongs to the application 'shop', and this is the application 'admin'"):
        await started_name([word.replace("shop", "admin") for word in WAYS["uvicorn"]], tmp_path)


WAITS = "queue stopping: waiting at most 20 s for 1 running request"


async def test_a_second_interrupt_ends_the_announced_wait(tmp_path: Path) -> None:
    async with serving(uvicorn(), tmp_path) as server:
        async with server.queue() as queue:
            request_id = await queue.submit("POST", "/gated")
            await eventually(lambda: server.lines("entered"))
        began = time.monotonic()
        await _interrupt(server)
        await eventually(lambda: WAITS in server.output, 5)
        assert "press Ctrl-C again to stop at once" in server.output
        await _interrupt(server)
        await server.ended(8)
        assert time.monotonic() - began < 12, "it did not wait for the shutdown timeout"
        (tmp_path / "gate").touch()
        await server.start()
        async with server.queue() as again:
            assert (await again.response(request_id)).text == "through"
        assert server.lines("attempts") == ["1", "1"]


async def _interrupt(server: Server) -> None:
    """Send SIGINT to the process group, as a terminal does."""
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGINT)


async def test_no_wait_is_announced_if_there_is_none(tmp_path: Path) -> None:
    async with serving(uvicorn(), tmp_path) as server:
        await server.stop(signal.SIGINT)
        assert "queue stopping" not in server.output


async def test_hypercorn_whose_workers_receive_no_interrupt_announces_the_wait_only(tmp_path: Path) -> None:
    async with serving(hypercorn(), tmp_path, shutdown_timeout="1s") as server:
        async with server.queue() as queue:
            await queue.submit("POST", "/gated")
            await eventually(lambda: server.lines("entered"))
        await _interrupt(server)
        await eventually(lambda: WAITS.replace("20 s", "1 s") in server.output, 5)
        assert "Ctrl-C" not in server.output.partition("queue stopping")[2]
        await server.ended()
