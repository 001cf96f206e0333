"""What one attempt has to do with somebody outside: its callback URL, and going to wait for him."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Self

from .models import Claim, Failure, JobState, StoredResponse, Task
from .replay import App, Replay
from .target import Targets, callback_url
from .waiting import wait_after
from .waitingroom import Heard, WaitingRoom


class Errand:
    """For an attempt at a task; `on_demand` for that of a plain submission whose handler asks for its callback URL."""

    def __init__(self, claim: Claim, task: Task, targets: Targets, room: WaitingRoom) -> None:
        aim = targets.aim(claim.request, task)
        self.task = task
        self.claim = claim.replace(request=aim.request)
        """With the callback URL in its places."""
        self.asked = False
        """Whether the handler has asked for its callback URL."""
        self._app = aim.app
        self.secret = aim.secret
        """The callback id, once somebody here knows it; it is to be kept nowhere."""
        self._template = claim.request
        self._targets = targets
        self._room = room

    @classmethod
    def on_demand(cls, claim: Claim, targets: Targets, room: WaitingRoom) -> Self:
        """Of a job that has no task; it will have one."""
        return cls(claim, targets.expect(claim.request), targets, room)

    def begin(self, replay: Replay) -> App:
        """What is to be called; of the answer the secret is not kept."""
        if self.secret is not None:
            replay.hide(self.secret)
        return self._app

    def callback_url(self, replay: Replay) -> str:
        """For the handler. Raises `QueueError` where the secret is gone from which it was made."""
        secret = self.secret = self.secret or self._targets.secret_of(self.task)
        replay.hide(secret)
        self.asked = True
        return callback_url(self.task.spec.base, secret)

    def expect(self) -> Awaitable[bool]:
        """Let those outside find the job by its callback URL from now on."""
        return self._room.expect(self.claim, self.task)

    def conclude(self, outcome: StoredResponse | Failure, heard: Heard | None) -> Awaitable[JobState | None]:
        """See `waitingroom.WaitingRoom.conclude`."""
        wait = wait_after(outcome, self.task.spec, self._template, time.time(), asked=self.asked)
        return self._room.conclude(self.claim, self.task, outcome, wait, heard)
