"""Starts a server under uvicorn on a free loopback port, in a separate process, and stops that process afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
_RUNNING = re.compile(r"Uvicorn running on (http://\S+)")
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 30.0


class ServerFailed(Exception):
    """A server did not start, or ended before its URL was known."""


@contextmanager
def serving(app: str, log: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Run `app` ("package.module:name") while the block runs, and yield its base URL. Its output goes to the file `log`."""
    # With port 0 the kernel chooses a port and uvicorn prints it, so no other program can take the port first.
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", "0", "--no-use-colors"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the arguments are constants of the demos
            command, cwd=ROOT, env=_environment(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _url(process, log)
    finally:
        _stop(process)


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    # A demo behaves the same on every machine: it ignores options of the queue in this environment.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QUEUE_")}
    return {**inherited, "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **extra}


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if found := _RUNNING.search(log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.02)
    raise ServerFailed(f"the server did not start; last lines of {log}:\n{tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # has no effect on a process that has ended, e.g. by the Ctrl-C that ends the demo
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
