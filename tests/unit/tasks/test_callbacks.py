"""Lookup of secret ids: a new one may not be stored yet, so an unknown id is looked up twice."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.models import JobState
from queue_middleware.tasks.callback_auth import CallbackVerifier
from queue_middleware.tasks.callbacks import CallbackHandler
from queue_middleware.tasks.models import CompletionSource, SecretIdKind
from queue_middleware.tasks.secret_ids import hash_of_id
from queue_middleware.tasks.store import TaskStore

ID = "ab" * 32


class Tasks:
    """Replaces the task store. Ids are unknown until `known` is set."""

    def __init__(self) -> None:
        self.known = asyncio.Event()
        self.lookups = 0

    async def find(self, secret: SecretIdKind, wanted: bytes) -> Any:
        self.lookups += 1
        if not self.known.is_set():
            raise UnknownRequest("there is no such id")
        return SimpleNamespace(task=SimpleNamespace(callback_hash=wanted, signal_hash=None))


def handler(tasks: Tasks) -> CallbackHandler:
    return CallbackHandler(cast("TaskStore", tasks), CallbackVerifier(()), lambda event: None)


async def test_an_unknown_id_is_looked_up_again() -> None:
    tasks = Tasks()
    asyncio.get_running_loop().call_later(0.05, tasks.known.set)
    found = await handler(tasks).find_job(SecretIdKind.CALLBACK, ID)
    assert found.task.callback_hash == hash_of_id(ID)
    assert tasks.lookups == 2


async def test_after_the_second_lookup_it_is_unknown() -> None:
    tasks = Tasks()
    with pytest.raises(UnknownRequest):
        await handler(tasks).find_job(SecretIdKind.CALLBACK, ID)
    assert tasks.lookups == 2


async def test_text_that_cannot_be_an_id_is_not_looked_up() -> None:
    tasks = Tasks()
    with pytest.raises(UnknownRequest):
        await handler(tasks).find_job(SecretIdKind.CALLBACK, "../" + ID)
    assert tasks.lookups == 0


@pytest.mark.parametrize("method", ["callback", "signal"])
async def test_the_body_is_not_read_after_the_end(method: str) -> None:
    class Ended:
        async def find(self, secret: SecretIdKind, wanted: bytes) -> Any:
            task = SimpleNamespace(callback_hash=wanted, signal_hash=wanted, spec=SimpleNamespace(target="/work", poll=None))
            return SimpleNamespace(
                task=task, state=JobState.COMPLETED, resolved_by=CompletionSource(method), key=1, request_id="id"
            )

    ended = handler(cast("Tasks", Ended()))
    body = b"[" * 10_000_000  # reading it would fail
    if method == "callback":
        await ended.receive_callback(ID, (), body)
    else:
        await ended.receive_signal(ID, (), body)
