"""schemathesis against a real server: every response of the queue's routes matches the document."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio.to_thread
import pytest

from .servers import serving, uvicorn

pytestmark = pytest.mark.slow

CONFIG = """
[parameters]
"query.fal_webhook" = "http://127.0.0.1:9/hook"
# Nothing shall wait long.
"header.Prefer" = "wait=1"

[checks]
# A stored response of the application may be a 404.
ensure_resource_availability.enabled = false
use_after_free.enabled = false
# The default, and 422: the same Idempotency-Key is sent with different requests. The webhook above is never refused.
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 422, 429, "5xx"]

[[operations]]
# A valid cancellation after the end is a 400.
include-path-regex = "/cancel$"
checks.positive_data_acceptance.enabled = false

[[operations]]
# Nearly every random task is refused for its target, and every random callback, signal and id for being none.
include-path-regex = "^/v1/"
checks.positive_data_acceptance.enabled = false

[[operations]]
# The same headers in every method and form: their combinations are tried in one of them, and at random in the others.
include-path-regex = "(/submit|/{alias}|/{path})$"
exclude-name = "POST /run/{owner}/{alias}/{path}"
phases.coverage.enabled = false
"""


async def test_every_response_matches_the_document(tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    async with serving(uvicorn(), tmp_path) as server:
        command = [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", "schemathesis.toml"),
            *("run", f"{server.url}/fal/queue/openapi.json"),
            *("--phases", "coverage,fuzzing,stateful", "--max-examples", "10", "--generation-deterministic", "--no-color"),
        ]
        environ = {**os.environ, "NO_PROXY": "127.0.0.1"}
        run = await anyio.to_thread.run_sync(
            lambda: subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        )
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
        async with server.client() as client:
            paths = (await client.get("/fal/queue/openapi.json")).json()["paths"]
        # schemathesis does not test the document's own route.
        assert f"Tested: {sum(map(len, paths.values())) - 1}" in run.stdout
        assert server.complaints() == []
