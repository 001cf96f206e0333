"""The programs of docs/how-to/submit-once-and-wait.md: over a network that loses the first response, and waiting."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from tests.support.queue_client import eventually, stored_jobs

from .clients.edge import listening, relay
from .clients.page import block
from .servers import Server, serving, uvicorn
from .test_waiting import has_waiting

pytestmark = pytest.mark.slow

PAGE = "submit-once-and-wait.md"
DEADLINE = 60.0


@asynccontextmanager
async def losing_the_first_response(upstream: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port in front of the server, and the first line of each response; the first one does not reach the client."""
    responses: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection("127.0.0.1", upstream)
        towards = asyncio.create_task(relay(reader, ahead))
        responses.append(first := await behind.readuntil(b"\r\n"))
        if len(responses) > 1:
            writer.write(first)
            await relay(behind, writer)
        towards.cancel()
        ahead.close()

    async with listening(serve) as port:
        yield port, responses


async def printed(*command: str) -> str:
    """Run a program and return what it prints."""
    with anyio.fail_after(DEADLINE):
        done = await anyio.run_process(command, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


async def run_program(language: str, code: str, folder: Path) -> str:
    """Run a program of the page as a reader would. Returns what it prints."""
    if language == "curl":
        return await printed("bash", "-c", code)
    file = folder / {"Python": "program.py", "JavaScript": "program.cjs"}[language]
    file.write_text(code)
    return await printed(sys.executable if language == "Python" else "node", str(file))


each_language = pytest.mark.parametrize(("language", "fence"), [("curl", "sh"), ("Python", "python"), ("JavaScript", "js")])


def program_of(heading: str, fence: str) -> str:
    """The program below a heading of the page, which names the address of the service once."""
    if fence == "js" and shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    code = block(heading, fence, PAGE)
    assert code.count("127.0.0.1:8000") == 1
    return code


@each_language
async def test_a_program_whose_first_response_is_lost(language: str, fence: str, tmp_path: Path) -> None:
    code = program_of(f"With {language}", fence)
    async with (
        serving(uvicorn(), tmp_path) as server,
        losing_the_first_response(server.port) as (port, responses),
    ):
        output = await run_program(language, code.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), tmp_path)
        request_id = str(json.loads(output)["request_id"]) if language == "curl" else output
        assert [line.split()[1] for line in responses] == [b"200", b"200"]
        await check_that_it_ran_once(server, request_id)


@each_language
async def test_a_program_that_waits(language: str, fence: str, tmp_path: Path) -> None:
    code = program_of(f"Wait with {language}", fence)
    (tmp_path / "slow").touch()
    async with serving(uvicorn(), tmp_path) as server:
        program = asyncio.create_task(
            run_program(language, code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"), tmp_path)
        )
        await eventually(lambda: has_waiting(server, 1))
        assert not program.done()
        (tmp_path / "gate").touch()
        assert json.loads(await program) == {"picture": "a picture of a cat"}
        assert server.lines("generated") == ["a cat"]
        # The submission, at most one status and the response: the program did not poll.
        assert server.output.count("/fal/queue/") <= 3
        assert server.complaints() == []


async def test_the_programs_run_one_after_the_other(tmp_path: Path) -> None:
    """A reader who tries several of them has one service. No program repeats the request of another."""
    fences = {"curl": "sh", "Python": "python"} | ({"JavaScript": "js"} if shutil.which("node") else {})
    async with serving(uvicorn(), tmp_path) as server:
        for beginning in ("With", "Wait with"):
            for language, fence in fences.items():
                code = block(f"{beginning} {language}", fence, PAGE)
                await run_program(language, code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"), tmp_path)
        await eventually(lambda: server.lines("generated") == ["a cat"] * 2 * len(fences))


async def test_the_program_for_curl_ends_if_its_submission_is_refused(tmp_path: Path) -> None:
    code = block("Wait with curl", "sh", PAGE)
    async with serving(uvicorn(), tmp_path) as server:
        code = code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        await run_program("curl", code, tmp_path)
        refused = await run_program("curl", code.replace("a cat", "a dog"), tmp_path)
    assert json.loads(refused) == {"status": "NOT_FOUND"}  # without an id; the reason is among the errors
    assert stored_jobs(server.database) == 1


async def check_that_it_ran_once(server: Server, request_id: str) -> None:
    async with server.queue() as queue:
        assert (await queue.response(request_id)).json() == {"picture": "a picture of a cat"}
    await eventually(lambda: server.lines("generated") == ["a cat"])
    assert stored_jobs(server.database) == 1
