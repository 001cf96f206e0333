"""Servers as processes of their own, on free loopback ports. Each is ended by its own process id, also after an exception."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 30
_STOP_SECONDS = 30
_SHOWN_OUTPUT = 2000


@dataclass(frozen=True)
class Server:
    """A running process and the port on which it listens."""

    port: int
    pid: int


@contextmanager
def process(
    command: Sequence[str], environ: Mapping[str, str] | None = None, stop: signal.Signals = signal.SIGTERM, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the end of the block, which `stop` ends.

    It has a session of its own: Ctrl-C in a terminal reaches this process only, which then ends the others in order.
    Its output is shown only if it ends by itself; the block may send it `stop`.
    """
    env = {**os.environ, **(environ or {})}
    with tempfile.TemporaryFile() as output:
        running = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **options
        )
        try:
            yield running
        finally:
            if running.poll() is None:
                _end(running, stop)
            elif running.returncode != -stop:
                output.seek(0)
                shown = output.read()[-_SHOWN_OUTPUT:].decode(errors="replace")
                print(f"{running.args!r} ended by itself with status {running.returncode}:\n{shown}", file=sys.stderr)


def _end(running: subprocess.Popen[bytes], stop: signal.Signals) -> None:
    running.send_signal(stop)
    try:
        running.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)  # its session, and so its children too
        running.wait()


@contextmanager
def serving(
    command: Callable[[int], Sequence[str]], environ: Mapping[str, str] | None = None, **options: Any
) -> Iterator[Server]:
    """Run a command that is made from a free port; yields when it listens there."""
    with socket.socket() as reserved:
        # While this socket is bound, no other process is given its port. Servers set the same option, and can listen there.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = int(reserved.getsockname()[1])
        with process(command(port), environ, **options) as running:
            wait_until_it_listens(port, running)
            yield Server(port, running.pid)


@contextmanager
def uvicorn(app: str, environ: Mapping[str, str] | None = None, *arguments: str, **options: Any) -> Iterator[Server]:
    """Serve `app` (module:name) with uvloop and httptools."""
    common = (app, "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error")
    patient = ("--timeout-keep-alive", "3600")  # connections stay open while other variants are measured
    with serving(
        lambda port: python("-m", "uvicorn", *common, *patient, "--port", str(port), *arguments), environ, **options
    ) as server:
        yield server


@contextmanager
def queue_server(
    database: Path, app: str = "benchmarks.apps:queued", environ: Mapping[str, str] | None = None, concurrency: int = 256
) -> Iterator[Server]:
    """Serve a queue on a database of its own, with limits that no benchmark reaches."""
    settings = {
        "QUEUE_DATABASE": str(database),
        "QUEUE_CONCURRENCY": str(concurrency),
        "QUEUE_MAX_QUEUED": "1000000000",
        "QUEUE_MAX_QUEUED_PER_CLIENT": "1000000000",
        "QUEUE_MIN_FREE_DISK": "0",
        "QUEUE_OUTBOUND_ALLOW": "127.0.0.1",
        **(environ or {}),
    }
    with uvicorn(app, settings, "--factory") as server:
        yield server


def python(*arguments: str) -> list[str]:
    """A command line of this interpreter."""
    return [sys.executable, *arguments]


def wait_until_it_listens(port: int, running: subprocess.Popen[bytes]) -> None:
    """Raises `RuntimeError` when the process ends, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and running.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"the server did not start: {running.args!r}")
