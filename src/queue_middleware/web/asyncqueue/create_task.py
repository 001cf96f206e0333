"""Checks and stores a new task, which calls the wrapped application or an external host."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from queue_middleware.asgi.headers import MAX_HEADER_BYTES, read_headers
from queue_middleware.asgi.mount import read_mount
from queue_middleware.asgi.proxy_headers import ProxyHeaders
from queue_middleware.background import ThreadLimiter
from queue_middleware.errors import BadRequest, InvalidWebhook, NotAllowed, UnknownRequest
from queue_middleware.jobs.ids import SEQUENCE_BITS, parse_request_id
from queue_middleware.jobs.models import Headers, Job, JobState, NewJob, RetryPolicy, StoredRequest
from queue_middleware.jobs.routes import OTHER
from queue_middleware.jobs.struct import Struct
from queue_middleware.jobs.task_spec import Task, TaskSpec
from queue_middleware.outbound.guard import parse_url
from queue_middleware.runtime.runtime import Runtime
from queue_middleware.syntax.hosts import matching_entry
from queue_middleware.syntax.urls import encode_url
from queue_middleware.tasks.models import TaskRecord, TaskStatus
from queue_middleware.tasks.placeholders import has_placeholder, has_placeholder_in_url, substitute_in_url
from queue_middleware.tasks.representation import PRIORITIES
from queue_middleware.tasks.target import callback_url, is_allowed_target
from queue_middleware.web.idempotency import IdempotencyKeys
from queue_middleware.web.path_rules import PathRules, check_length
from queue_middleware.web.request import QueueRequest
from queue_middleware.web.urls import base_url, client_address, host_of, server_address
from queue_middleware.worker.starts import Submission

from .schema import TaskRequest, check_due, read_task

CREATED = 201
"""The status of the response, also if the task existed already."""
_FIELD = "targetUrl"
_PATH = b"tasks"
"""What fingerprints have in place of the path of a call, which begins with a slash: no call is the same request as a task."""
_UNENCODED = re.compile(r"[^\x21-\x7e]")
_SAMPLE = "https://service.example.com/fal/queue/v1/callbacks/" + "0" * 64
"""A callback URL of realistic length. Targets are checked with it in place of the placeholder."""


class Created(Struct, frozen=True):
    """A task, and the secrets that only its creator receives."""

    private = frozenset({"secrets"})

    record: TaskRecord
    secrets: dict[str, str]
    is_replayed: bool = False
    """Whether an earlier request with the same idempotency key has created it."""


class TaskCreator:
    """Creates the tasks of one queue."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._paths = PathRules(runtime.settings)
        self._keys = IdempotencyKeys(runtime.settings)
        self._proxy = ProxyHeaders(runtime.settings.proxy_headers, runtime.settings.task_headers_allow)
        self._lane = ThreadLimiter()

    async def create(self, request: QueueRequest[Any], body: bytes) -> tuple[Submission, Created]:
        """Store a task. Raises a `QueueError` if it is not accepted.

        Send the response inside `with` of the returned submission.
        """
        key = self._keys.read(request.headers)
        asked = await self._lane.run(len(body), read_task, body, self._settings.max_wait)
        check_due(asked.due_at, self._runtime.time(), self._settings.max_delay)
        if asked.on_complete is not None:
            with _as_bad_request():
                asked = asked.replace(on_complete=self._runtime.check_webhook(asked.on_complete, "onCompleteUrl"))
        if asked.poll is not None:
            self._refuse_reserved("pollConfig.headers", (name.lower().encode("ascii") for name in asked.poll.headers))
        external = not asked.target.startswith("/")
        if external:
            with _as_bad_request():
                asked = asked.replace(target=encode_url(asked.target, _FIELD))
        stored = self._external(request, asked) if external else self._internal(request, asked)
        if not external:
            self._keys.require(key, _path_of(asked))
        spec = TaskSpec(
            due_at=asked.due_at,
            base_url=base_url(request.scope, self._settings),
            wait_timeout=asked.wait,
            callback=has_placeholder(stored) or (external and has_placeholder_in_url(asked.target)),
            signal=asked.signal,
            target=asked.target,
            method=asked.method,
            is_external=external,
            timeout=asked.timeout,
            backoff=asked.backoff,
            provider=asked.provider,
            poll=asked.poll,
        )
        task = self._runtime.new_task(spec, listed=True)
        new = self._new_job(request, asked, stored, task)
        if key is not None:
            new = new.replace(idempotency_key=await self._keys.make(request, key, _PATH, b"", body))
        return await self._submit(new, task, tuple(request.scope["headers"]))

    async def _submit(self, new: NewJob, task: Task, caller: Headers) -> tuple[Submission, Created]:
        while True:
            submission = await self._runtime.submit(new, caller, status=CREATED)
            existing = submission.result.existing
            if existing is None:
                return submission, Created(_record(submission.result.request_id, new, task.spec), self._secrets_of(task))
            try:
                record = await self._runtime.task(existing.job.request_id)
            except UnknownRequest:
                continue  # retention has just deleted it, so its key is free again
            return submission, Created(
                record, {} if existing.task is None else self._secrets_of(existing.task), is_replayed=True
            )

    def _internal(self, request: QueueRequest[Any], asked: TaskRequest) -> StoredRequest:
        """A call of the wrapped application, on behalf of the client that a proxy saw when the task was created."""
        self._refuse_reserved("headers", (name for name, _ in asked.headers))
        path, _, query = asked.target.partition("#")[0].partition("?")
        check_length(path, query.encode())
        if _UNENCODED.search(query) or not path.isascii():
            raise BadRequest(f"{_FIELD} contains characters that have to be percent-encoded")
        self._paths.check(path)
        host = (b"host", host_of(request.scope).encode("latin-1"))
        own = tuple(pair for pair in asked.headers if pair[0] != b"host")
        given = {name for name, _ in own}
        client = (pair for pair in self._proxy.about_client(request.scope["headers"]) if pair[0] not in given)
        headers = (host, *own, *client)
        raw_path = (request.split_path.root + path).encode("ascii")
        return self._request(request, asked, headers, raw_path, query.encode("ascii"))

    def _external(self, request: QueueRequest[Any], asked: TaskRequest) -> StoredRequest:
        """A call of an external host, which has to be allowed by the operator and by the outbound guard."""
        with _as_bad_request():
            filled = substitute_in_url(asked.target, _SAMPLE)
            parsed = parse_url(filled, _FIELD)
            if not is_allowed_target(parsed.host, self._settings.task_targets):
                raise NotAllowed(f"tasks may not call {parsed.host}; the option 'task_targets' lists the allowed hosts")
            self._runtime.guard.check_url(filled, _FIELD)
        if self._runtime.guard.is_allowed_by_operator(parsed.host):
            # Hosts in the operator's own network trust this service as they trust a proxy.
            self._refuse_reserved("headers", (name for name, _ in asked.headers))
        # The full URL is in the task spec; only what may be logged is stored here.
        return self._request(request, asked, asked.headers, f"{parsed.scheme}://{parsed.host}".encode(), b"")

    def _request(
        self, request: QueueRequest[Any], asked: TaskRequest, headers: Headers, raw_path: bytes, query: bytes
    ) -> StoredRequest:
        read = read_headers(headers, self._proxy.is_set_by_proxies)
        if read.size > MAX_HEADER_BYTES:
            raise BadRequest(f"headers: the call would have {read.size} bytes of headers; the maximum is {MAX_HEADER_BYTES}")
        return StoredRequest(
            method=asked.method,
            root_path=request.scope.get("root_path", ""),
            raw_path=raw_path,
            query=query,
            headers=read.replayed,
            client=client_address(request.scope),
            server=server_address(request.scope),
            scheme=request.scope.get("scheme", "http"),
            http_version=request.scope.get("http_version", "1.1"),
            body=asked.body,
            mount=read_mount(request.scope),
        )

    def _refuse_reserved(self, field: str, names: Iterable[bytes]) -> None:
        for name in names:
            if self._proxy.is_reserved(name):
                raise BadRequest(
                    f"{field} contains {name.decode()[:64]!r}, in which a proxy in front of the service names its client; "
                    f"remove it, or ask the operator to add it to the option 'task_headers_allow'"
                )

    def _new_job(self, request: QueueRequest[Any], asked: TaskRequest, stored: StoredRequest, task: Task) -> NewJob:
        return NewJob(
            request=stored,
            client=request.client,
            retry=RetryPolicy(1 + asked.retries, backoff=asked.backoff),
            priority=PRIORITIES - asked.priority,
            webhook=asked.on_complete,
            due_at=asked.due_at,
            task=task,
            route=self._route(request, asked),
        )

    def _route(self, request: QueueRequest[Any], asked: TaskRequest) -> str:
        """Of a call of the application the template of its path; of an external one the entry of `task_targets`."""
        if asked.target.startswith("/"):
            return self._runtime.routes.of(_path_of(asked), asked.method, request.scope)
        host = parse_url(substitute_in_url(asked.target, _SAMPLE), _FIELD).host
        return matching_entry(host, self._settings.task_targets) or OTHER

    def _secrets_of(self, task: Task) -> dict[str, str]:
        ids = self._runtime.secret_ids_of(task)
        secrets: dict[str, str] = {}
        if ids is None:
            return secrets
        callback_id, token = ids
        if task.spec.callback:
            secrets |= {"callbackId": callback_id, "callbackUrl": callback_url(task.spec.base_url, callback_id)}
        if task.spec.signal:
            secrets["signalToken"] = token
        return secrets


def _path_of(asked: TaskRequest) -> str:
    """The path of a call of the wrapped application."""
    return re.split("[?#]", asked.target, maxsplit=1)[0]


def _record(request_id: str, new: NewJob, spec: TaskSpec) -> TaskRecord:
    """The task as it was stored; it may have been started since."""
    key, _ = parse_request_id(request_id)
    created_at = key >> SEQUENCE_BITS
    delayed = new.due_at is not None and new.due_at > created_at
    job = Job(
        key=key,
        request_id=request_id,
        state=JobState.DELAYED if delayed else JobState.QUEUED,
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
    status = TaskStatus.DELAYED if delayed else TaskStatus.PENDING
    return TaskRecord(job, spec, status, new.priority, new.retry.max_attempts, new.due_at, new.webhook)


@contextmanager
def _as_bad_request() -> Iterator[None]:
    """AsyncQueue has one status for every invalid field."""
    try:
        yield
    except InvalidWebhook as error:
        raise BadRequest(error.detail) from None
