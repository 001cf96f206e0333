"""Real servers as subprocesses: started on a free loopback port, inspected, stopped by their own pids, never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import httpx

from tests.support.queue_client import Queue, eventually

ROOT = Path(__file__).parents[2]
APP = "tests.acceptance.service:app"
START = 30.0
"""Seconds for a server to start. Two busy cores import several workers' worth of Python in that time."""
STOP = 15.0
"""Seconds for a regular shutdown."""

Command = Callable[[int], list[str]]
"""From a port to the arguments after `python -m`."""


def uvicorn(*options: str) -> Command:
    return lambda port: ["uvicorn", APP, "--host", "127.0.0.1", "--port", str(port), *options]


def gunicorn(*options: str) -> Command:
    return lambda port: ["gunicorn", APP, "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "10", *options]


def hypercorn(*options: str) -> Command:
    return lambda port: ["hypercorn", APP, "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "5", *options]


def has_gunicorn_asgi() -> bool:
    """gunicorn has its own ASGI worker since version 24."""
    return find_spec("gunicorn.workers.gasgi") is not None


def uvicorn_worker() -> str:
    """uvicorn's worker for gunicorn is in a separate package now."""
    return f"{'uvicorn_worker' if find_spec('uvicorn_worker') else 'uvicorn.workers'}.UvicornWorker"


@dataclass
class Server:
    """A server and its directory, in which the service keeps its database and records what it does."""

    command: Command
    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    killed: set[int] = field(default_factory=set)
    """The pids of processes that were killed."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        return Path(self.settings.get("QUEUE_DATABASE", self.directory / "queue.sqlite3"))

    @property
    def output(self) -> str:
        """The output of all its processes from all its starts."""
        with suppress(FileNotFoundError):
            return (self.directory / "output.txt").read_text(errors="replace")
        return ""

    def lines(self, name: str) -> list[str]:
        """The lines that the service recorded under this name."""
        with suppress(FileNotFoundError):
            return (self.directory / name).read_text().splitlines()
        return []

    # --- starting

    async def start(self, workers: int = 1) -> None:
        """Start, and wait until it responds and has this many workers. A restart keeps the port."""
        self.port = self.port or free_port()
        (self.directory / "workers").mkdir(exist_ok=True)
        environ = {
            **{name: value for name, value in os.environ.items() if name != "QUEUE_NAME"},
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src"))),
            "PYTHONUNBUFFERED": "1",
            "HOME": str(self.directory),  # gunicorn creates a control socket there
            "SERVICE_DIRECTORY": str(self.directory),
            "QUEUE_DATABASE": str(self.database),
            "QUEUE_OUTBOUND_ALLOW": "127.0.0.1",
            "QUEUE_MIN_FREE_DISK": "0",
            **self.settings,
        }
        with (self.directory / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command(self.port)],
                cwd=self.directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the session distinguishes its workers from other processes
            )
        async with self.client() as client:
            await eventually(lambda: self._is_ready(client, workers), START)

    async def _is_ready(self, client: httpx.AsyncClient, workers: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}"
        with suppress(httpx.TransportError):
            return (await client.get("/health")).status_code == 200 and len(self.workers()) >= workers
        return False

    # --- using

    def client(self, connections: int = 64) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        return httpx.AsyncClient(base_url=self.url, timeout=10, limits=limits, trust_env=False)

    @asynccontextmanager
    async def sockets(self, count: int) -> AsyncIterator[list[anyio.abc.SocketStream]]:
        """This many connections, which are closed at the end of the block."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", self.port)) for _ in range(count)]

    @asynccontextmanager
    async def queue(self) -> AsyncIterator[Queue]:
        async with self.client() as client:
            yield Queue(client)

    def workers(self) -> list[int]:
        """The pids of workers that have started and not shut down."""
        return sorted(int(sign.name) for sign in (self.directory / "workers").iterdir() if self._is_ours(int(sign.name)))

    def _is_ours(self, pid: int) -> bool:
        """Alive and in the session of this server; the pid may belong to another process by now."""
        with suppress(ProcessLookupError, PermissionError):
            return self.process is not None and os.getsid(pid) == self.process.pid
        return False

    # --- stopping

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a stop signal and wait for the end; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(how)
        return await self.ended()

    async def ended(self, seconds: float = STOP) -> int:
        """Wait for the end; returns the exit status."""
        assert self.process is not None
        return await anyio.to_thread.run_sync(self.process.wait, seconds)

    def kill_worker(self, pid: int) -> None:
        """Kill one worker."""
        self._forget(pid)
        if self._is_ours(pid):
            self.killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    async def kill_all(self) -> None:
        """Kill all processes: the supervisor first, or it would start new workers."""
        if self.process is None:
            return
        workers = self.workers()
        self.killed.add(self.process.pid)
        self.process.kill()
        for pid in {*workers, *self._session()}:
            self.kill_worker(pid)
        await self.ended()

    def signal_all(self, how: signal.Signals) -> None:
        """Send a signal to every process."""
        assert self.process is not None
        for pid in (self.process.pid, *self._session()):
            os.kill(pid, how)

    def _session(self) -> list[int]:
        """The pids of all processes of the session but the first; workers without a lifespan record nothing."""
        assert self.process is not None
        pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if pid != self.process.pid and self._is_ours(pid)]

    def _forget(self, pid: int) -> None:
        (self.directory / "workers" / str(pid)).unlink(missing_ok=True)

    # --- checking

    def complaints(self) -> list[str]:
        """Lines of the output that should not be there."""
        bad = ("Traceback", "[ERROR]", "ERROR:", "CRITICAL", "never awaited", "was destroyed", "database is locked")
        return [line for line in self.output.splitlines() if any(word in line for word in bad)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def serving(command: Command, directory: Path, workers: int = 1, **settings: object) -> AsyncIterator[Server]:
    """A running server. It never survives the block, and a failure shows its output."""
    server = Server(command, directory, {f"QUEUE_{name.upper()}": str(value) for name, value in settings.items()})
    try:
        await server.start(workers)
        yield server
    except BaseException as error:
        error.add_note(f"--- {' '.join(command(server.port))} printed:\n{tail(server.output)}")
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await server.kill_all()


def tail(text: str, lines: Sequence[int] = (40, 160)) -> str:
    """The beginning and the end of a server's output."""
    first, last = lines
    printed = text.splitlines()
    if len(printed) <= first + last:
        return text
    return "\n".join([*printed[:first], f"… {len(printed) - first - last} lines …", *printed[-last:]])
