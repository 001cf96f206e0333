"""A real server with a root path, as behind a proxy that removes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.servers import serving, uvicorn

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("root", ["/fal/queue", "/fal/queue/", "/sub/"])
async def test_uvicorn_with_a_root_path(tmp_path: Path, root: str) -> None:
    async with serving(uvicorn("--root-path", root), tmp_path) as server, server.queue() as queue:
        response = await queue.client.post("/fal/queue/submit/square", json={"n": 7})
        assert response.status_code == 200, response.text
        public = f"{server.url}{root.rstrip('/')}"
        assert response.json()["status_url"].startswith(f"{public}/fal/queue/requests/")
        answered = await queue.response(response.json()["request_id"])
        assert answered.json() == {"n": 7, "square": 49}
        assert (await queue.client.post("/square", json={"n": 7})).json() == answered.json()
        await server.stop()
