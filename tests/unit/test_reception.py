"""An id that was handed out a moment ago may not be on the disk yet: a provider who is that quick is not sent away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from queue_middleware.callback_id import digest
from queue_middleware.errors import UnknownRequest
from queue_middleware.models import JobState
from queue_middleware.provenance import Provenance
from queue_middleware.reception import Reception
from queue_middleware.tasks import Channel, SecretId
from queue_middleware.waitingroom import WaitingRoom

ID = "ab" * 32


class Room:
    """Knows an id from a moment on."""

    def __init__(self) -> None:
        self.known = asyncio.Event()
        self.looks = 0

    async def find(self, secret: SecretId, wanted: bytes) -> Any:
        self.looks += 1
        if not self.known.is_set():
            raise UnknownRequest("there is no such id")
        return SimpleNamespace(task=SimpleNamespace(callback=wanted, signal=None))


def reception(room: Room) -> Reception:
    return Reception(cast("WaitingRoom", room), Provenance(()), lambda event: None)


async def test_it_is_looked_for_again_a_moment_later() -> None:
    room = Room()
    asyncio.get_running_loop().call_later(0.05, room.known.set)
    found = await reception(room).find(SecretId.CALLBACK, ID)
    assert found.task.callback == digest(ID)
    assert room.looks == 2


async def test_and_then_it_is_unknown() -> None:
    room = Room()
    with pytest.raises(UnknownRequest):
        await reception(room).find(SecretId.CALLBACK, ID)
    assert room.looks == 2


async def test_what_cannot_be_an_id_is_not_looked_for() -> None:
    room = Room()
    with pytest.raises(UnknownRequest):
        await reception(room).find(SecretId.CALLBACK, "../" + ID)
    assert room.looks == 0


@pytest.mark.parametrize("verb", ["callback", "signal"])
async def test_of_what_has_ended_nothing_is_read(verb: str) -> None:
    class Ended:
        async def find(self, secret: SecretId, wanted: bytes) -> Any:
            task = SimpleNamespace(callback=wanted, signal=wanted, spec=SimpleNamespace(target="/work", poll=None))
            return SimpleNamespace(task=task, state=JobState.COMPLETED, resolved_by=Channel(verb), key=1, request_id="id")

    end = reception(cast("Room", Ended()))
    body = b"[" * 10_000_000  # it would be refused by whoever reads it
    if verb == "callback":
        await end.callback(ID, (), body)
    else:
        await end.signal(ID, body)
