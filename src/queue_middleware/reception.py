"""Takes what arrives from outside for tasks that wait: callbacks and signals. Their secret id is all that it asks for.

A callback may come before the answer to the call that it is about, several times, with news before the last word, or too late;
only the last of these is refused.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

from .background import Lane
from .callback_id import digest, is_callback_id
from .errors import AlreadyEnded, BadRequest, UnknownRequest
from .events import Announce, Finished, NotLast
from .json_text import MISSING, read_json, without_mark
from .lifecycle import FINAL
from .models import ErrorType, Failure, Headers, StoredResponse
from .provenance import Provenance
from .tasks import Channel, Resolution, Resolved, SecretId, Waiter
from .waitingroom import WaitingRoom
from .wire.readings import Failed, Running, read_callback, reason_of
from .wire.templates import read_path

_SECOND_LOOK = 0.25
"""Seconds until an unknown id is looked for again: one that a handler has asked for a moment ago may not be on the disk yet."""
_JSON: Headers = ((b"content-type", b"application/json"),)
_LONGEST_STATUS = 100


class Reception:
    """The verbs of those outside. They raise `UnknownRequest` for an id that there is not, or is not any more."""

    def __init__(self, room: WaitingRoom, provenance: Provenance, announce: Announce) -> None:
        self._room = room
        self._provenance = provenance
        self._announce = announce
        self._lane = Lane()

    async def callback(self, callback_id: str, headers: Headers, body: bytes) -> None:
        """What a provider says. Raises `VerificationError`, `BadRequest` for what is no JSON, and `AlreadyEnded`."""
        waiter = await self.find(SecretId.CALLBACK, callback_id)
        spec = waiter.task.spec
        await self._provenance.check(spec.target, headers, body)
        if _is_over(waiter, Channel.CALLBACK):
            return

        def read() -> tuple[bytes, Running | Failed | None]:
            hidden = _without(callback_id, body)
            return hidden, read_callback(_parsed(hidden), spec.poll, spec.target)

        body, word = await self._lane.run(len(body), read)
        if isinstance(word, Running):
            status = (word.status or "")[:_LONGEST_STATUS]
            await self._room.note(waiter.key, status)
            self._announce(NotLast(waiter.request_id, status))
        else:
            await self._resolve(waiter, Channel.CALLBACK, body, _failure(word))

    async def signal(self, token: str, body: bytes) -> Waiter:
        """What somebody says who was given the token: `{"status": "completed" | "failed", …}`. Raises as `callback` does."""
        waiter = await self.find(SecretId.SIGNAL, token)
        if not _is_over(waiter, Channel.SIGNAL):
            body, failed = await self._lane.run(len(body), _read_signal, _without(token, body))
            await self._resolve(waiter, Channel.SIGNAL, body, _failure(failed))
        return waiter

    async def find(self, secret: SecretId, text: str) -> Waiter:
        """Who waits for this id."""
        if not is_callback_id(text):
            raise UnknownRequest("there is no such id")
        wanted = digest(text)
        try:
            waiter = await self._room.find(secret, wanted)
        except UnknownRequest:
            await asyncio.sleep(_SECOND_LOOK)
            waiter = await self._room.find(secret, wanted)
        found = waiter.task.callback if secret is SecretId.CALLBACK else waiter.task.signal
        if found is None or not hmac.compare_digest(found, wanted):
            raise UnknownRequest("there is no such id")
        return waiter

    async def _resolve(self, waiter: Waiter, channel: Channel, body: bytes, failure: Failure | None) -> None:
        response = StoredResponse(200, _JSON, body)
        resolved = await self._room.resolve(waiter.key, channel, Resolution(response, failure))
        if resolved is Resolved.TOO_LATE:
            raise AlreadyEnded("the task has already ended otherwise")
        if resolved is Resolved.ENDED:
            self._announce(Finished(waiter.request_id, 0, failure or response, 0.0))


def _is_over(waiter: Waiter, channel: Channel) -> bool:
    """Whether this channel has ended it. Raises `AlreadyEnded` where something else has."""
    if waiter.state not in FINAL:
        return False
    if waiter.resolved_by is not channel:
        raise AlreadyEnded("the task has already ended otherwise")
    return True


def _without(secret: str, body: bytes) -> bytes:
    """Providers like to repeat where they were told to call; the id is to be stored nowhere."""
    return without_mark(body).replace(secret.encode(), b"*" * len(secret))


def _read_signal(body: bytes) -> tuple[bytes, Failed | None]:
    said = _parsed(body)
    status = read_path(said, "status")
    if status not in ("completed", "failed"):
        raise BadRequest("a signal says status: 'completed' or 'failed'")
    return body, Failed(reason_of(said) or "the signal says failed") if status == "failed" else None


def _parsed(body: bytes) -> Any:
    if (content := read_json(body)) is MISSING:
        raise BadRequest("the body is not JSON")
    return content


def _failure(word: Failed | None) -> Failure | None:
    return Failure(ErrorType.PROVIDER_FAILED, word.error) if word is not None else None
