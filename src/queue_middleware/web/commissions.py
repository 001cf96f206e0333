"""From a task that is asked for to a stored job: judged, and aimed at the application or at a host outside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from queue_middleware.background import Lane
from queue_middleware.errors import BadRequest, InvalidWebhook, NotAllowed
from queue_middleware.guard import parse_url
from queue_middleware.headers import LARGEST_BLOCK, read_headers
from queue_middleware.models import Headers, Job, JobState, NewJob, RetryPolicy, StoredRequest
from queue_middleware.mount import read_mount
from queue_middleware.proxy_headers import ProxyHeaders
from queue_middleware.request_id import SEQUENCE_BITS, parse_request_id
from queue_middleware.runtime import Runtime
from queue_middleware.starts import Submission
from queue_middleware.target import callback_url, may_call
from queue_middleware.tasks import TaskRecord, TaskStatus
from queue_middleware.taskspec import Task, TaskSpec
from queue_middleware.urls import encode_url
from queue_middleware.wire import fal
from queue_middleware.wire.placeholder import fill_address, holds_place, holds_place_in
from queue_middleware.wire.taskrequests import PRIORITIES, TaskRequest, check_due, read_task

from .address import base_url, client_address, host_of, server_address
from .call import Call
from .submission import PathRules

_NOUN = "targetUrl"
_SPELLED = re.compile(r"[^\x21-\x7e]")
_SAMPLE = "https://service.example.com/fal/queue/v1/callbacks/" + "0" * 64
"""As long as a callback URL may well be; what is judged is the target with it in its places."""


class Created(NamedTuple):
    """What a new task is like, and what only its maker is told."""

    record: TaskRecord
    told: dict[str, str]


class Commissions:
    """Takes tasks for one queue."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._paths = PathRules(runtime.settings)
        self._proxy = ProxyHeaders(runtime.settings.proxy_headers, runtime.settings.task_headers_allow)
        self._lane = Lane()

    async def take(self, call: Call, body: bytes) -> tuple[Submission, Created]:
        """Store a task. Raises what is wrong with it. To be answered inside of `with` the submission."""
        asked = await self._lane.run(len(body), read_task, body, self._settings.max_wait)
        check_due(asked.due_at, self._runtime.time(), self._settings.max_delay)
        if asked.on_complete is not None:
            with _as_bad_request():
                asked = asked.replace(on_complete=self._runtime.check_webhook(asked.on_complete, "onCompleteUrl"))
        if asked.poll is not None:
            self._refuse_reserved("pollConfig.headers", (name.lower().encode("ascii") for name in asked.poll.headers))
        outside = not asked.target.startswith("/")
        if outside:
            with _as_bad_request():
                asked = asked.replace(target=encode_url(asked.target, _NOUN))
        request = self._outside(call, asked) if outside else self._inside(call, asked)
        spec = TaskSpec(
            base=base_url(call.scope, self._settings),
            wait=asked.wait,
            callback=holds_place(request) or (outside and holds_place_in(asked.target)),
            signal=asked.signal,
            target=asked.target,
            method=asked.method,
            outside=outside,
            timeout=asked.timeout,
            backoff=asked.backoff,
            provider=asked.provider,
            poll=asked.poll,
        )
        task = self._runtime.new_task(spec, listed=True)
        new = self._new_job(call, asked, request, task)
        submission = await self._runtime.submit(new)
        return submission, Created(_record(submission.receipt.request_id, new, spec), self._told(task))

    def _inside(self, call: Call, asked: TaskRequest) -> StoredRequest:
        """A call of the wrapped application, by the client that a proxy in front has seen when the task was made."""
        self._refuse_reserved("headers", (name for name, _ in asked.headers))
        path, _, query = asked.target.partition("#")[0].partition("?")
        fal.check_length(path, query.encode())
        self._paths.check(path)
        if _SPELLED.search(query) or not path.isascii():
            raise BadRequest(f"{_NOUN} holds characters that a URL spells with %")
        host = (b"host", host_of(call.scope).encode("latin-1"))
        own = tuple(pair for pair in asked.headers if pair[0] != b"host")
        given = {name for name, _ in own}
        client = (pair for pair in self._proxy.about_client(call.scope["headers"]) if pair[0] not in given)
        headers = (host, *own, *client)
        raw_path = (call.address.root + path).encode("ascii")
        return self._request(call, asked, headers, raw_path, query.encode("ascii"))

    def _outside(self, call: Call, asked: TaskRequest) -> StoredRequest:
        """A call of another host: one of those that the service's owner allows, and that the guard would connect to."""
        with _as_bad_request():
            filled = fill_address(asked.target, _SAMPLE)
            parsed = parse_url(filled, _NOUN)
            if not may_call(parsed.host, self._settings.task_targets):
                raise NotAllowed(f"tasks may not call {parsed.host}; the option 'task_targets' names the hosts that they may")
            self._runtime.guard.check_url(filled, _NOUN)
        if self._runtime.guard.is_opened(parsed.host):
            # What runs in the operator's own network believes this service as it believes a proxy.
            self._refuse_reserved("headers", (name for name, _ in asked.headers))
        # The address is in the specification; here stands only what the journal may name.
        return self._request(call, asked, asked.headers, f"{parsed.scheme}://{parsed.host}".encode(), b"")

    def _request(self, call: Call, asked: TaskRequest, headers: Headers, raw_path: bytes, query: bytes) -> StoredRequest:
        read = read_headers(headers, self._proxy.sets)
        if read.size > LARGEST_BLOCK:
            raise BadRequest(f"headers: the call would have {read.size} bytes of headers, the most is {LARGEST_BLOCK}")
        return StoredRequest(
            method=asked.method,
            root_path=call.scope.get("root_path", ""),
            raw_path=raw_path,
            query=query,
            headers=read.replayed,
            client=client_address(call.scope),
            server=server_address(call.scope),
            scheme=call.scope.get("scheme", "http"),
            http_version=call.scope.get("http_version", "1.1"),
            body=asked.body,
            mount=read_mount(call.scope),
        )

    def _refuse_reserved(self, field: str, names: Iterable[bytes]) -> None:
        for name in names:
            if self._proxy.is_reserved(name):
                raise BadRequest(
                    f"{field} holds {name.decode()[:64]!r}, by which a proxy in front of the service says who its client is; "
                    f"leave it out, or have the service's owner name it in the option 'task_headers_allow'"
                )

    def _new_job(self, call: Call, asked: TaskRequest, request: StoredRequest, task: Task) -> NewJob:
        return NewJob(
            request=request,
            client=call.client,
            retry=RetryPolicy(1 + asked.retries, backoff=asked.backoff),
            priority=PRIORITIES - asked.priority,
            webhook=asked.on_complete,
            due_at=asked.due_at,
            task=task,
        )

    def _told(self, task: Task) -> dict[str, str]:
        callback_id, token = self._runtime.secrets_of(task)
        told: dict[str, str] = {}
        if task.spec.callback:
            told |= {"callbackId": callback_id, "callbackUrl": callback_url(task.spec.base, callback_id)}
        if task.spec.signal:
            told["signalToken"] = token
        return told


def _record(request_id: str, new: NewJob, spec: TaskSpec) -> TaskRecord:
    """As it was stored; it may have been started since."""
    key, _ = parse_request_id(request_id)
    created_at = key >> SEQUENCE_BITS
    put_off = new.due_at is not None and new.due_at > created_at
    job = Job(
        key=key,
        request_id=request_id,
        state=JobState.DELAYED if put_off else JobState.QUEUED,
        attempt=0,
        position=None,
        progress=None,
        created_at=created_at,
        started_at=None,
        finished_at=None,
        status=None,
        failure=None,
        client=new.client,
    )
    status = TaskStatus.DELAYED if put_off else TaskStatus.PENDING
    return TaskRecord(job, spec, status, new.priority, new.retry.max_attempts, new.due_at, new.webhook)


@contextmanager
def _as_bad_request() -> Iterator[None]:
    """AsyncQueue has one status for all that is wrong with a field."""
    try:
        yield
    except InvalidWebhook as error:
        raise BadRequest(error.detail) from None
