"""Webhook receivers on Node.js and in Python that do not use this package, and a service whose keys change."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
import standardwebhooks
from anyio.streams.text import TextReceiveStream

from tests.acceptance.servers import Server, serving, uvicorn
from tests.support.queue_client import eventually
from tests.support.webhook_receiver import Receiver, Webhook, receiving

from .children import Client
from .environments import SCRIPTS, Environment
from .page import block

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PAGE = "receive-webhooks.md"
JWKS = "/fal/queue/.well-known/jwks.json"


@pytest.fixture(scope="module")
async def sender(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A service of two processes, with a secret that it shares with its receivers."""
    folder = tmp_path_factory.mktemp("sender")
    async with serving(uvicorn("--workers", "2"), folder, 2, webhook_secret=SECRET) as server:
        yield server
        assert server.complaints() == []


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def js(node: Environment, sender: Server) -> Client:
    variables = {"PATH": os.environ["PATH"], "HOME": str(sender.directory), "JWKS_URL": sender.url + JWKS}
    return Client(node, SCRIPTS / "verify.cjs", variables | dict(node.variables))


async def new_webhook(sender: Server, receiver: Receiver) -> Webhook:
    async with sender.queue() as queue:
        request_id = await queue.submit("POST", f"/square?fal_webhook={receiver.url}/", json={"n": 12})
        (webhook,) = await eventually(lambda: receiver.webhooks_for(request_id))
    return webhook


def as_arguments(webhook: Webhook, **changes: Any) -> dict[str, Any]:
    """The webhook as a script receives it."""
    return {"headers": webhook.headers, "body": base64.b64encode(webhook.body).decode(), "secret": SECRET} | changes


def changed(webhook: Webhook) -> str:
    return base64.b64encode(webhook.body.replace(b"144", b"145")).decode()


async def test_libsodium_as_in_the_guide(js: Client, sender: Server, receiver: Receiver) -> None:
    webhook = await new_webhook(sender, receiver)
    assert await js.run("guide", **as_arguments(webhook)) is True
    assert await js.run("guideRefuses", **as_arguments(webhook, body=changed(webhook))) is True
    another = {**webhook.headers, "x-fal-webhook-user-id": "somebody"}
    assert await js.run("guideRefuses", **as_arguments(webhook, headers=another)) is True


async def test_node_crypto_with_every_entry_of_the_key_set(js: Client, sender: Server, receiver: Receiver) -> None:
    webhook = await new_webhook(sender, receiver)
    assert await js.run("builtIn", **as_arguments(webhook)) == [True, True]  # unpadded, padded
    assert await js.run("builtIn", **as_arguments(webhook, body=changed(webhook))) == [False, False]


async def test_the_library_of_standard_webhooks(js: Client, sender: Server, receiver: Receiver) -> None:
    webhook = await new_webhook(sender, receiver)
    assert (await js.run("library", **as_arguments(webhook)))["payload"] == {"n": 12, "square": 144}
    assert await js.run("libraryRefuses", **as_arguments(webhook, body=changed(webhook))) is True


async def test_python_as_documented_by_fal(sender: Server, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWKS_URL", sender.url + JWKS)
    page = types.ModuleType("page")
    exec(block("Python", "python", PAGE), page.__dict__)
    webhook = await new_webhook(sender, receiver)
    outcomes = [
        await anyio.to_thread.run_sync(page.is_genuine, headers, body)
        for headers, body in (
            (webhook.headers, webhook.body),
            (webhook.headers, webhook.body + b" "),
            ({**webhook.headers, "x-fal-webhook-timestamp": "1700000000"}, webhook.body),
            ({**webhook.headers, "x-fal-webhook-signature": "00"}, webhook.body),
            ({}, webhook.body),
        )
    ]
    assert outcomes == [True, False, False, False, False]
    assert standardwebhooks.Webhook(SECRET).verify(webhook.body, webhook.headers)["payload"]["square"] == 144


@asynccontextmanager
async def program(js: Client, code: str, path: Path) -> AsyncIterator[TextReceiveStream]:
    """Run a program that serves, and yield its output. It is terminated by its pid."""
    path.write_text(code)
    command = [*js.environment.command, str(path)]
    async with await anyio.open_process(command, env=dict(js.variables) | {"PORT": "0"}, stderr=None) as process:
        try:
            assert process.stdout is not None
            yield TextReceiveStream(process.stdout)
        finally:
            process.terminate()


async def line(printed: TextReceiveStream) -> str:
    with anyio.fail_after(30):
        text = ""
        while not text.endswith("\n"):
            text += await printed.receive()
    return text.strip()


async def test_the_receiver_of_the_page_on_node(js: Client, sender: Server, receiver: Receiver, tmp_path: Path) -> None:
    async with program(js, block("Node", "js", PAGE), tmp_path / "receiver.mjs") as printed:
        url = f"http://127.0.0.1:{(await line(printed)).removeprefix('listening on ')}"
        async with sender.queue() as queue:
            request_id = await queue.submit("POST", f"/square?fal_webhook={url}/", json={"n": 3})
            assert await line(printed) == f"{request_id} OK"
        webhook = await new_webhook(sender, receiver)
        async with httpx.AsyncClient(trust_env=False) as client:
            forged = await client.post(url, headers=_x(webhook.headers), content=webhook.body + b" ")
            genuine = await client.post(url, headers=_x(webhook.headers), content=webhook.body)
        assert (forged.status_code, genuine.status_code) == (401, 200)


def _x(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith(("x-fal-", "webhook-"))}


async def test_a_rotation_under_two_processes(js: Client, sender: Server, receiver: Receiver) -> None:
    """By the command, beside the running service: no process restarts, and no receiver that fetches the keys is affected."""
    before = await _published(sender)
    printed = await anyio.to_thread.run_sync(_command, sender, "rotate")
    assert "is published now and signs from" in printed
    assert before < await _published(sender)
    webhook = await new_webhook(sender, receiver)
    assert await js.run("guide", **as_arguments(webhook)) is True

    await anyio.to_thread.run_sync(_command, sender, "rotate", "--compromised")

    async def all_use_the_new_key() -> bool:
        webhooks = [await new_webhook(sender, receiver) for _ in range(4)]
        return all([any(await js.run("builtIn", **as_arguments(webhook))) for webhook in webhooks])

    await eventually(all_use_the_new_key, 60)
    assert not before & await _published(sender)


async def _published(sender: Server) -> set[str]:
    async with sender.client() as client:
        return {entry["kid"] for entry in (await client.get(JWKS)).json()["keys"]}


def _command(sender: Server, *arguments: str) -> str:
    environ = {**os.environ, "QUEUE_DATABASE": str(sender.database)}
    command = [sys.executable, "-m", "queue_middleware", "keys", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout
