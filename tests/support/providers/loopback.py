"""Base of the fake providers: an HTTP server on loopback.

Work takes no time: a job advances one phase with each poll, and the tests decide when a webhook is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qs, urlsplit

import h11
import httpx

from tests.support.http_request import read_request


def loopback_client(timeout: float) -> httpx.AsyncClient:
    """For HTTP on this machine. It loads no certificate authorities, because that takes longer than most tests."""
    return httpx.AsyncClient(trust_env=False, timeout=timeout, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@dataclass
class Call:
    """A received request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """A response; a body that is not bytes is sent as JSON."""

    status: int
    body: Any = b""
    headers: Sequence[tuple[str, str]] = ()

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    def head(self) -> list[tuple[str, str]]:
        kind = [] if isinstance(self.body, bytes) else [("content-type", "application/json")]
        return [*kind, *self.headers, ("content-length", str(len(self.content()))), ("connection", "close")]


HANG_UP = Reply(0)
"""Closes the connection without a response."""

KEY = "secret-of-a-customer"


class Refused(Exception):
    """Raised to respond with `reply`."""

    def __init__(self, status: int, body: Any) -> None:
        self.reply = Reply(status, body)


@dataclass
class Job:
    """A piece of work. `phase` counts its polls."""

    id: str
    input: Any
    phase: int = 0
    webhook: str | None = None


@dataclass
class Provider:
    """Base of the fake providers.

    `ends` is the final status of all jobs, `polls_needed` the number of polls before it; None for one in each phase.
    `interruptions` replace the responses to the next polls; None lets one pass.
    """

    phases: ClassVar[Sequence[str]]
    ends: str = ""
    key: str = KEY
    polls_needed: int | None = None
    url: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    interruptions: deque[Reply | None] = field(default_factory=deque)
    client: httpx.AsyncClient = field(default_factory=lambda: loopback_client(10))

    async def respond(self, call: Call) -> Reply:
        """The response to this call."""
        self.calls.append(call)
        try:
            self.check_key(call)
            if call.method == "GET" and self.interruptions and (replacement := self.interruptions.popleft()) is not None:
                return replacement
            return await (self.poll(call) if call.method == "GET" else self.begin(call))
        except Refused as refused:
            return refused.reply

    def check_key(self, call: Call) -> None:
        if call.headers.get("authorization") != f"Bearer {self.key}":
            raise Refused(401, {"title": "Unauthenticated", "detail": "You did not pass a valid authentication token"})

    async def begin(self, call: Call) -> Reply:
        """Start a job."""
        raise NotImplementedError

    async def poll(self, call: Call) -> Reply:
        """Respond to a poll of the status or the result."""
        raise NotImplementedError

    def create_job(self, model_input: Any, webhook: str | None = None) -> Job:
        number = len(self.jobs) + 1
        job = Job(hashlib.sha256(f"{type(self).__name__} {number}".encode()).hexdigest(), model_input, webhook=webhook)
        self.jobs[job.id] = job
        return job

    def job(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise Refused(404, {"detail": "Not found"})
        return self.jobs[job_id]

    def statuses(self) -> list[str]:
        return [*self.phases[:-1][: self.polls_needed], self.ends or self.phases[-1]]

    def status(self, job: Job) -> str:
        """The current status."""
        statuses = self.statuses()
        return statuses[min(job.phase, len(statuses) - 1)]

    def next_status(self, job: Job) -> str:
        """The current status; the next poll sees the next phase."""
        status = self.status(job)
        job.phase += 1
        return status

    def end(self, job: Job) -> None:
        """Finish the job at once."""
        job.phase = len(self.statuses())

    @property
    def polls(self) -> list[Call]:
        return [call for call in self.calls if call.method == "GET"]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection with one request."""
        connection = h11.Connection(h11.SERVER)
        try:
            if (request := await read_request(connection, reader)) is not None:
                reply = await self.respond(Call(request.method, request.target, request.headers, request.body))
                if reply is not HANG_UP:
                    writer.write(connection.send(h11.Response(status_code=reply.status, headers=reply.head())) or b"")
                    writer.write(
                        (connection.send(h11.Data(reply.content())) or b"") + (connection.send(h11.EndOfMessage()) or b"")
                    )
                    await writer.drain()
        except (ConnectionError, h11.RemoteProtocolError):
            pass  # some tests kill the caller
        finally:
            writer.close()


P = TypeVar("P", bound=Provider)


@asynccontextmanager
async def providing(provider: P) -> AsyncIterator[P]:
    """Serve the provider inside the block."""
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, backlog=256)
    async with server, provider.client:
        provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield provider
