"""Handles the callbacks and signals that external services send for waiting tasks. A secret id is all that authorizes them.

A callback may arrive before the response to the call that caused it, several times, with intermediate states before the final
result, or too late; only one that is too late is refused.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from queue_middleware.background import ThreadLimiter
from queue_middleware.errors import AlreadyEnded, BadRequest, UnknownRequest
from queue_middleware.events import Emit, Finished, ResultReceived, TaskProgress
from queue_middleware.instrumentation import CallbackWork, Instruments
from queue_middleware.jobs.models import ErrorType, Failure, Headers, StoredResponse
from queue_middleware.jobs.states import FINAL
from queue_middleware.syntax.json_text import MISSING, read_json, strip_bom

from .callback_auth import CallbackVerifier
from .models import CompletionSource, ExternalResult, PendingJob, ResolveOutcome, SecretIdKind
from .polling.response import Failed, Running, error_text, read_callback
from .polling.templates import read_path
from .secret_ids import hash_of_id, is_secret_id
from .store import TaskStore

_SECOND_LOOKUP_DELAY = 0.25
"""Seconds before an unknown id is looked up again. If the handler has asked for it a moment ago, it may not be stored yet."""
_JSON: Headers = ((b"content-type", b"application/json"),)
_MAX_STATUS_LENGTH = 100
_UNKNOWN_ID = "unknown or expired id"
_ALREADY_ENDED = "the task has already ended in another way"


class CallbackHandler:
    """Receives callbacks and signals. Its methods raise `UnknownRequest` for an id that is unknown or expired."""

    def __init__(
        self, store: TaskStore, verifier: CallbackVerifier, emit: Emit, instruments: Instruments | None = None
    ) -> None:
        self._store = store
        self._instruments = instruments
        self._verifier = verifier
        self._emit = emit
        self._lane = ThreadLimiter()

    async def receive_callback(self, callback_id: str, headers: Headers, body: bytes) -> None:
        """Receive a callback. Raises `VerificationError`, `BadRequest` for a body that is not JSON, and `AlreadyEnded`."""
        job = await self.find_job(SecretIdKind.CALLBACK, callback_id)
        async with self._inside(job, CompletionSource.CALLBACK, headers) as work:
            work.result = await self._accept_callback(job, callback_id, headers, body)

    async def _accept_callback(self, job: PendingJob, callback_id: str, headers: Headers, body: bytes) -> str:
        spec = job.task.spec
        await self._verifier.verify(spec.target, headers, body)
        if _has_ended(job, CompletionSource.CALLBACK):
            return ""

        def read() -> tuple[bytes, Running | Failed | None]:
            redacted = _redact(callback_id, body)
            return redacted, read_callback(_parse(redacted), spec.poll, spec.target)

        body, state = await self._lane.run(len(body), read)
        if isinstance(state, Running):
            status = (state.status or "")[:_MAX_STATUS_LENGTH]
            await self._store.record_status(job.key, status)
            self._emit(TaskProgress(job.request_id, status))
            return "progress"
        return await self._resolve(job, CompletionSource.CALLBACK, body, _as_failure(state))

    async def receive_signal(self, token: str, headers: Headers, body: bytes) -> PendingJob:
        """Receive a signal, `{"status": "completed" | "failed", …}`. Raises as `receive_callback` does."""
        job = await self.find_job(SecretIdKind.SIGNAL, token)
        async with self._inside(job, CompletionSource.SIGNAL, headers) as work:
            if not _has_ended(job, CompletionSource.SIGNAL):
                body, failed = await self._lane.run(len(body), _read_signal, _redact(token, body))
                work.result = await self._resolve(job, CompletionSource.SIGNAL, body, _as_failure(failed))
        return job

    @asynccontextmanager
    async def _inside(self, job: PendingJob, channel: CompletionSource, caller: Headers) -> AsyncIterator[CallbackWork]:
        """What the instrumentations enter."""
        work, instruments = CallbackWork(channel.value, job.request_id, caller), self._instruments
        if instruments is None:
            yield work
        else:
            work.trace = await instruments.trace_of(job.key)
            with instruments.callback(work):
                yield work

    async def find_job(self, kind: SecretIdKind, secret_id: str) -> PendingJob:
        """Return the job that this secret id belongs to."""
        if not is_secret_id(secret_id):
            raise UnknownRequest(_UNKNOWN_ID)
        hashed = hash_of_id(secret_id)
        try:
            job = await self._store.find(kind, hashed)
        except UnknownRequest:
            await asyncio.sleep(_SECOND_LOOKUP_DELAY)
            job = await self._store.find(kind, hashed)
        stored = job.task.callback_hash if kind is SecretIdKind.CALLBACK else job.task.signal_hash
        if stored is None or not hmac.compare_digest(stored, hashed):
            raise UnknownRequest(_UNKNOWN_ID)
        return job

    async def _resolve(self, job: PendingJob, source: CompletionSource, body: bytes, failure: Failure | None) -> str:
        response = StoredResponse(200, _JSON, body)
        outcome = await self._store.resolve(job.key, source, ExternalResult(response, failure))
        self._emit(ResultReceived(job.request_id, source, outcome))
        if outcome is ResolveOutcome.TOO_LATE:
            raise AlreadyEnded(_ALREADY_ENDED)
        if outcome is ResolveOutcome.ENDED:
            self._emit(Finished.of(job.request_id, 0, failure or response, 0.0))
        return "completed" if failure is None else "failed"


def _has_ended(job: PendingJob, source: CompletionSource) -> bool:
    """Whether a result from this source has ended the job. Raises `AlreadyEnded` if it ended in another way."""
    if job.state not in FINAL:
        return False
    if job.resolved_by is not source:
        raise AlreadyEnded(_ALREADY_ENDED)
    return True


def _redact(token: str, body: bytes) -> bytes:
    """Replace the id in the body: providers often echo the URL that they call, and an id must not be stored."""
    return strip_bom(body).replace(token.encode(), b"*" * len(token))


def _read_signal(body: bytes) -> tuple[bytes, Failed | None]:
    content = _parse(body)
    status = read_path(content, "status")
    if status not in ("completed", "failed"):
        raise BadRequest("status of a signal must be 'completed' or 'failed'")
    return body, Failed(error_text(content) or "the signal has status failed") if status == "failed" else None


def _parse(body: bytes) -> Any:
    if (content := read_json(body)) is MISSING:
        raise BadRequest("the body is not valid JSON")
    return content


def _as_failure(failed: Failed | None) -> Failure | None:
    return Failure(ErrorType.PROVIDER_FAILED, failed.error) if failed is not None else None
