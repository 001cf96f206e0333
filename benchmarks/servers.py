"""Runs uvicorn in a separate process on a free loopback port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager


@contextmanager
def uvicorn(app: str, environ: Mapping[str, str] | None = None, *arguments: str) -> Iterator[int]:
    """Serve `app` (module:name) with uvloop and httptools; yields the port."""
    options = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error", *arguments)
    with serving(lambda port: ("uvicorn", app, "--port", str(port), *options), environ) as port:
        yield port


@contextmanager
def serving(module: Callable[[int], Sequence[str]], environ: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a Python module with arguments that contain a free port; yields the port when the module listens on it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-m", *module(port)], env={**os.environ, **(environ or {})})
    try:
        wait_until_it_listens(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the process listens. Raises `RuntimeError` if it ends, or after half a minute."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not start")
