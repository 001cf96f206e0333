"""Runs clients: one process for each action of a user of fal, with only the settings that a user would make."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import anyio

from .edge import Edge
from .environments import SCRIPTS, Environment

DEADLINE = 60.0
"""Seconds for one process. The slowest takes two seconds on an idle machine, mostly for its imports."""


@dataclass(frozen=True)
class Client:
    """A client of fal, with a script that uses it."""

    environment: Environment
    script: Path
    variables: Mapping[str, str]

    async def run(self, task: str, **arguments: Any) -> Any:
        """Run one task of the script and return its result."""
        return json.loads((await self.printed(str(self.script), task, json.dumps(arguments))).splitlines()[-1])

    async def program(self, code: str, path: Path) -> str:
        """Run a complete program as a reader would: in a file beside the installed packages. Returns its output."""
        path.write_text(code)
        packages = path.with_name("node_modules")
        packages.unlink(missing_ok=True)
        packages.symlink_to(self.variables["NODE_PATH"])
        return await self.printed(str(path))

    async def printed(self, *arguments: str) -> str:
        """Run a process and return its output. It never survives the call."""
        with anyio.fail_after(DEADLINE):
            done = await anyio.run_process(
                [*self.environment.command, *arguments], env=self.variables, cwd=SCRIPTS, stdin=DEVNULL, check=False
            )
        printed = done.stdout.decode()
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{printed}\n{done.stderr.decode()}"
        return printed

    def setting(self, **variables: str) -> Client:
        """The same client with further settings."""
        return Client(self.environment, self.script, {**self.variables, **variables})


def python_client(environment: Environment, script: str, edge: Edge, folder: Path) -> Client:
    """A Python client behind the edge; it reaches it through an ordinary proxy."""
    trust = {"SSL_CERT_FILE": str(edge.authority), "HTTPS_PROXY": f"http://127.0.0.1:{edge.proxy}"}
    return Client(environment, SCRIPTS / script, _setting(environment, folder) | trust)


def node_client(environment: Environment, script: str, edge: Edge, folder: Path) -> Client:
    """A Node.js client behind the edge. Its `fetch` may not support a proxy, so `names.cjs` directs it to the edge."""
    trust = {"NODE_EXTRA_CA_CERTS": str(edge.authority), "NODE_OPTIONS": f"--require={SCRIPTS / 'names.cjs'}"}
    return Client(environment, SCRIPTS / script, _setting(environment, folder) | trust | {"EDGE": str(edge.terminator)})


def _setting(environment: Environment, folder: Path) -> dict[str, str]:
    """The environment without settings of this machine or of the current user."""
    mine = {"PATH": os.environ["PATH"], "HOME": str(folder), "FAL_KEY": "an-id:a-secret", "GATES": str(folder / "gates")}
    return {**mine, **dict(environment.variables)}
