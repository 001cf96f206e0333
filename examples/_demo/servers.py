"""Start a server under uvicorn on a free loopback port, in a process of its own, and end that very process afterwards."""

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
    """A server did not start, or ended by itself."""


@contextmanager
def serving(app: str, log: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """The base URL of `app` ("package.module:name"), which runs while the block does. Its output goes to the file `log`."""
    # Port 0 lets the kernel choose, and uvicorn prints it: no other program can take the port in between.
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", "0", "--no-use-colors"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own arguments
            command, cwd=ROOT, env=_environment(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _url(process, log)
    finally:
        _stop(process)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    # A demo shows the same thing on every machine: options of the queue that lie around here do not count.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QUEUE_")}
    return {**inherited, "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **extra}


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if found := _RUNNING.search(log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.02)
    raise ServerFailed(f"the server did not start; the end of {log}:\n{tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # does nothing to a process that has ended, e.g. by the same Ctrl-C as ours
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
