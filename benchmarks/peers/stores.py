"""The servers in which peers store their jobs: new and empty ones, with everything on disk before it counts."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import find_program
from benchmarks.servers import serving

_POSTGRES_USER = "postgres"


@dataclass(frozen=True)
class Store:
    """Where a peer stores its jobs."""

    url: str
    pids: tuple[int, ...]
    """The process of the server; none if the store is a file."""


@contextmanager
def open_store(kind: str) -> Iterator[Store]:
    """Start an empty one. Its folder is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="queue-peer-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if kind == "redis":
            with _redis(folder) as store:
                yield store
        elif kind == "postgres":
            with _postgres(folder) as store:
                yield store
        else:
            yield Store(name, ())


@contextmanager
def _redis(folder: Path) -> Iterator[Store]:
    """Redis whose responses follow the fsync of its append-only file."""
    durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
    program = find_program("redis-server")
    assert program is not None
    with serving(lambda port: (program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), *durable)) as server:
        yield Store(f"redis://127.0.0.1:{server.port}/0", (server.pid,))


@contextmanager
def _postgres(folder: Path) -> Iterator[Store]:
    """PostgreSQL with its defaults, which fsync.

    It refuses to run as root, so root runs it as the user of Debian's package. SIGINT ends it without waiting for its clients.
    """
    options: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, pwd.getpwnam(_POSTGRES_USER).pw_uid)
        options = {"user": _POSTGRES_USER}
    data = folder / "data"
    initdb, program = find_program("initdb"), find_program("postgres")
    assert initdb is not None
    assert program is not None
    command = (initdb, "-D", str(data), "-U", _POSTGRES_USER, "-A", "trust", "--no-sync", "--encoding=UTF8", "--locale=C")
    subprocess.run(command, check=True, capture_output=True, **options)
    settings = ("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200")
    options["stop"] = signal.SIGINT
    with serving(lambda port: (program, "-D", str(data), "-p", str(port), *settings), None, **options) as server:
        yield Store(f"postgresql://{_POSTGRES_USER}@127.0.0.1:{server.port}/postgres", (server.pid,))
