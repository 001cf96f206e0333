"""Where a run was made: machine, versions, and how long this disk takes to make something durable."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "httpx", "pynacl")
_PEERS = ("saq", "arq", "huey", "celery", "dramatiq", "procrastinate", "pgqueuer", "redis", "asyncpg", "psycopg")
_FSYNCS = 200


def describe(folder: Path) -> dict[str, str]:
    """The conditions of a run, for the report. `folder` is on the disk whose fsync is measured."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "version": _commit(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "fsync": f"{fsync_seconds(folder) * 1000:.2f} ms for a write of 4 KiB and its fsync, median of {_FSYNCS}",
        "load": _load(),
        "Python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "packages": _versions(_PACKAGES),
        "peers": _versions(_PEERS),
        "servers": ", ".join(filter(None, (_server("redis-server"), _server("postgres")))) or "none",
    }


def fsync_seconds(folder: Path) -> float:
    """Median of a small write and its fsync."""
    seconds = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_FSYNCS):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _versions(packages: tuple[str, ...]) -> str:
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found) or "none"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f} processes ready to run in the minute before"


def _commit() -> str:
    """The commit that is checked out, with a mark if files differ from it."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _server(name: str) -> str:
    """Name and version of a program, if it is installed."""
    program = find_program(name)
    if program is None:
        return ""
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
    numbers = [word.removeprefix("v=") for word in words if word.removeprefix("v=")[:1].isdigit()]
    return f"{name} {numbers[0]}" if numbers else name


def find_program(name: str) -> str | None:
    """The path of a program. Debian keeps PostgreSQL's out of the search path, in a folder of the version."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return shutil.which(name) or next((str(place / name) for place in places if (place / name).exists()), None)
