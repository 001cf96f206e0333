"""What one attempt has to do with somebody outside: its callback URL, and going to wait for him."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from functools import partial
from typing import Self

from .models import Claim, Failure, JobState, StoredResponse
from .replay import App, Replay
from .surroundings import Surroundings
from .target import callback_url
from .taskspec import Task
from .waiting import end_of_call, shortened, wait_after
from .waitingroom import Heard


class Errand:
    """For an attempt at a task; `on_demand` for that of a plain submission whose handler asks for its callback URL."""

    def __init__(self, claim: Claim, task: Task, around: Surroundings) -> None:
        aim = around.targets.aim(claim.request, task)
        self.task = task
        self.claim = claim.replace(request=aim.request)
        """With the callback URL in its places."""
        self.asked = False
        """Whether the handler has asked for its callback URL."""
        self._app = aim.app
        self.secret = aim.secret
        """The callback id, once somebody here knows it; it is to be kept nowhere."""
        self._template = claim.request
        self._around = around
        self._room = around.tasks
        self._expecting: asyncio.Task[bool] | None = None

    @classmethod
    def on_demand(cls, claim: Claim, around: Surroundings) -> Self:
        """Of a job that has no task; it will have one."""
        return cls(claim, around.targets.expect(claim.request), around)

    def begin(self, replay: Replay) -> App:
        """What is to be called; of the answer the secret is not kept."""
        if self.secret is not None:
            replay.hide(self.secret)
        return self._app

    def callback_url(self, replay: Replay) -> str:
        """For the handler, from any thread. Raises `QueueError` where the secret is gone from which it was made."""
        secret = self.secret = self.secret or self._around.targets.secret_of(self.task)
        replay.hide(secret)
        if not self.asked:
            self.asked = True
            if threading.get_ident() == self._around.shelf.thread:
                self._expect()
            else:
                self._around.loop.call_soon_threadsafe(self._expect)
        return callback_url(self.task.spec.base, secret)

    def _expect(self) -> None:
        """Let those outside find the job by its callback URL from now on."""
        verb = partial(self._room.expect, self.claim, self.task)
        self._expecting = self._around.loop.create_task(self._around.insist(None, verb))

    async def expected(self) -> None:
        """Wait until they do, where the handler has asked."""
        if self._expecting is not None:
            await asyncio.wait((self._expecting,))

    def conclude(self, outcome: StoredResponse | Failure, heard: Heard | None) -> Awaitable[JobState | None]:
        """See `waitingroom.WaitingRoom.conclude`."""
        wait = wait_after(outcome, self.task.spec, self._template, self._around.clock(), asked=self.asked)
        if wait is not None:
            # Of its own accord an answer may ask for more than the submitter could have asked for.
            wait = shortened(wait, max(self._around.settings.max_wait, self.task.spec.wait))
            wait = wait.replace(credentials=self._around.targets.without_proxies(wait.credentials))
        return self._room.conclude(
            self.claim, self.task, end_of_call(outcome, self.task) if wait is None else outcome, wait, heard
        )
