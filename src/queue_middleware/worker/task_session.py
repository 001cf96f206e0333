"""The part of an attempt that involves an external service: the target, the callback URL, and what the job then waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from functools import partial
from typing import Self

from queue_middleware.asgi.replay import App, Replay
from queue_middleware.jobs.models import AttemptEnd, Claim, Failure, StoredResponse
from queue_middleware.jobs.store import OnResult
from queue_middleware.jobs.task_spec import Task
from queue_middleware.tasks.target import callback_url
from queue_middleware.tasks.wait import decide_wait, final_outcome, limit_wait

from .context import WorkerContext


class TaskSession:
    """Belongs to an attempt at a task. `on_demand` creates it for a plain request whose handler asks for its callback URL."""

    def __init__(self, claim: Claim, task: Task, context: WorkerContext) -> None:
        resolved = context.targets.resolve(claim.request, task)
        self.task = task
        self.claim = claim.replace(request=resolved.request)
        """The claim, with the callback URL in place of its placeholders."""
        # A task may ask for less time than the operator allows, but not for more.
        limit = context.settings.request_timeout
        self.time_limit = min(task.spec.timeout or limit, limit)
        self._app = resolved.app
        self.secret = resolved.callback_id
        """The callback id, once this process has computed it; it must not be stored anywhere."""
        self._is_url_requested = False
        self._original_request = claim.request
        self._context = context
        self._tasks = context.tasks
        self._registering: asyncio.Task[bool] | None = None

    @classmethod
    def on_demand(cls, claim: Claim, context: WorkerContext) -> Self:
        """Create it for a job that has no task yet; `commit` stores one."""
        return cls(claim, context.targets.new_callback_task(claim.request), context)

    def begin(self, replay: Replay) -> App:
        """What the attempt calls: the wrapped application, or the external target in the form of one."""
        if self.secret is not None:
            replay.redact(self.secret)
        return self._app

    def callback_url(self, replay: Replay) -> str:
        """The callback URL, for the handler; from any thread. Raises `QueueError` if its secret is no longer configured."""
        secret = self.secret = self.secret or self._context.targets.callback_id_of(self.task)
        replay.redact(secret)
        if not self._is_url_requested:
            self._is_url_requested = True
            if threading.get_ident() == self._context.logs.thread:
                self._register()
            else:
                self._context.loop.call_soon_threadsafe(self._register)
        return callback_url(self.task.spec.base_url, secret)

    def _register(self) -> None:
        """Store the callback id, so that a callback finds the job from now on."""
        register = partial(self._tasks.register_callback, self.claim, self.task)
        self._registering = self._context.loop.create_task(self._context.retry_on_outage(register))

    async def registered(self) -> None:
        """Wait until the callback id is stored, if the handler has asked for the URL."""
        if self._registering is not None:
            await asyncio.wait((self._registering,))

    def commit(
        self, outcome: StoredResponse | Failure, on_result: OnResult[AttemptEnd | None] | None = None
    ) -> Awaitable[AttemptEnd | None]:
        """Complete the job, or let it wait for the external service."""
        spec = self.task.spec
        wait = decide_wait(
            outcome, spec, self._original_request, self._context.clock(), callback_requested=self._is_url_requested
        )
        if wait is None:
            outcome = final_outcome(outcome, self.task)
        else:
            # A response may ask for a longer wait than a submission is allowed to.
            wait = limit_wait(wait, max(self._context.settings.max_wait, spec.wait_timeout))
            wait = wait.replace(credentials=self._context.targets.without_proxy_headers(wait.credentials))
        return self._tasks.complete_attempt(self.claim, self.task, outcome, wait, on_result)
