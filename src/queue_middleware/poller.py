"""The loop that asks providers whether the work of a task is done: claims what is due, asks several at once, settles each."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from functools import partial

from . import events
from .background import GRACE, SHORTEST_WAIT, Lane, Rounds
from .cadence import next_question
from .callback_id import CallbackIds
from .errors import OutboundBusy, OutboundError, OutboundRefused
from .events import Announce, Finished, Outage, Polled, PollFailed
from .headers import kept_headers
from .inquiry import Inquiry
from .models import ErrorType, Failure, StoredResponse
from .store import Store, Topic
from .tasks import Channel, Poll, Resolution, Resolved
from .turns import Turns
from .value import Value
from .waitingroom import WaitingRoom
from .wire.questions import question_headers
from .wire.readings import (
    MOST_REDIRECTS,
    Done,
    Failed,
    Fetch,
    Moved,
    Reading,
    Running,
    Trouble,
    make_plan,
    read_result,
    read_status,
)
from .wire.templates import Start, Unfillable

LIMIT = 8
"""Questions at once in this process; an answer may be as large as the largest result."""
LONGEST = 45.0
"""Seconds for one question with all its redirects and its result: less than the lease of a poll."""
_SOON = 5.0
"""Seconds after which a question that could not be asked is asked."""


class _Heard(Value, frozen=True):
    """What a question came to, and the answer that said so, where there was one."""

    reading: Reading
    answer: StoredResponse | None = None


class Poller:
    """Asks until it is told to stop. `run` in a task of its own; `stop` from the same event loop, repeatable.

    `clock` gives Unix seconds, the store's. `grace` is how many seconds questions under way get when it stops; one that is not
    settled then is asked again after its lease, or as soon as this process has ended.
    """

    def __init__(
        self,
        store: Store,
        room: WaitingRoom,
        inquiry: Inquiry,
        ids: CallbackIds,
        announce: Announce,
        *,
        clock: Callable[[], float] = time.time,
        limit: int = LIMIT,
        grace: float = GRACE,
    ) -> None:
        self._store = store
        self._room = room
        self._inquiry = inquiry
        self._ids = ids
        self._announce = announce
        self._clock = clock
        self._turns = Turns(limit)
        self._lane = Lane()
        self._rounds = Rounds(self._claim, partial(events.Trouble, "poller", announce), grace=grace)
        store.subscribe(Topic.POLL, self._rounds.wake)

    async def run(self) -> None:
        """Work until `stop`; ends when the questions under way are settled or were given up."""
        await self._rounds.run()

    def stop(self) -> None:
        """Claim nothing more; `run` ends soon."""
        self._rounds.stop()

    def wake(self) -> None:
        """Claim what is due now: the clock may have moved."""
        self._rounds.wake()

    def tokens(self) -> list[int]:
        """Of the questions under way; called from another thread."""
        return self._rounds.tokens()

    def hurry(self) -> None:
        """Wait for nothing any more when stopping. Repeatable."""
        self._rounds.hurry()

    async def _claim(self) -> float | None:
        """Start what is due. See `background.Rounds`."""
        places = self._turns.places()
        if places is None:
            return None  # the first question that ends wakes us
        # Asked first, because it only reads: a claim waits for its turn to write even when there is nothing to do.
        due = await self._store.next_due(Topic.POLL)
        if due is None or due > 0:
            return due
        # Places that became free meanwhile have woken us, and are in the next claim.
        claimed = await self._room.claim_polls(places)
        for poll in claimed.polls:
            self._turns.begin(poll.token, poll.host)
            self._rounds.begin(self._ask(poll), f"poll {poll.request_id}", poll.token, partial(self._ended, poll.token))
        return None if claimed.next_in is None else max(claimed.next_in, SHORTEST_WAIT)

    def _ended(self, token: int) -> None:
        self._turns.end(token)
        self._rounds.wake()

    # --- one question

    async def _ask(self, poll: Poll) -> None:
        """One question, from the call to what follows from it. It raises nothing: the others must not end with it."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST):
                heard = await self._hear(poll)
        except Unfillable as nowhere:
            heard = _Heard(_cannot_ask(poll, str(nowhere)), poll.start)
        except OutboundRefused as refused:
            heard = _Heard(_cannot_ask(poll, f"the provider may not be asked: {refused.detail}"))
        except OutboundBusy as busy:
            if await self._put_off(poll):
                return
            heard = _Heard(Trouble(busy.detail))
        except OutboundError as failed:
            heard = _Heard(Trouble(failed.detail))
        except TimeoutError:
            heard = _Heard(Trouble(f"no whole answer within {LONGEST:g} s"))
        except Exception as unexpected:
            self._announce(Outage("poller", unexpected, 0.0))
            heard = _Heard(Trouble(f"not asked: {type(unexpected).__name__}"))
        took = time.monotonic() - began
        self._turns.judge(poll.host, took)
        await self._settle(poll, heard, took)

    async def _hear(self, poll: Poll) -> _Heard:
        """Ask, follow where the answer leads, and fetch the result where it stands elsewhere."""
        start = await self._start(poll)
        plan = await self._lane.run(len(start.body), make_plan, poll.config, start)
        url, is_result = plan.url, False
        for _ in range(MOST_REDIRECTS + 1):
            answer = await self._get(poll, url)
            if is_result:
                reading = await self._lane.run(len(answer.body), read_result, url, answer, poll.troubles)
            else:
                asked = (poll.config, plan, url, answer, poll.troubles)
                reading = await self._lane.run(len(answer.body), read_status, *asked)
            if not isinstance(reading, Fetch | Moved):
                return _Heard(reading, answer)
            url, is_result = reading.url, is_result or isinstance(reading, Fetch)
        return _Heard(Trouble(f"more than {MOST_REDIRECTS} redirects"))

    async def _start(self, poll: Poll) -> Start:
        """The answer to the first call, whole."""
        earlier = [await self._store.output(poll.key, number) for number in range(poll.start.parts)]
        body = b"".join((*earlier, poll.start.body))
        return Start(poll.task.spec.target, poll.start.status, poll.start.headers, body)

    async def _get(self, poll: Poll, url: str) -> StoredResponse:
        answer = await self._inquiry.get(url, question_headers(poll.config, poll.task.spec.target, poll.credentials, url))
        return answer.replace(headers=kept_headers(answer.headers), body=self._hidden(poll, answer.body))

    def _hidden(self, poll: Poll, data: bytes) -> bytes:
        """Providers like to repeat where they were told to call; the id is to be stored nowhere."""
        secret = self._ids.callback_of(poll.task)
        return data if secret is None else data.replace(secret.encode(), b"*" * len(secret))

    def _kept(self, poll: Poll, word: Resolution) -> Resolution:
        """Not before the end: a `Location` that holds the id has to be followed as it is."""
        headers = tuple((name, self._hidden(poll, value)) for name, value in word.response.headers)
        return word.replace(response=word.response.replace(headers=headers))

    # --- what follows

    async def _put_off(self, poll: Poll) -> bool:
        """It was not asked, for no fault of the provider, so nothing is counted; False where there is no time to ask again."""
        wait = next_question(_SOON, poll.waits_until / 1000 - self._clock(), 0, (), 0.0)
        if wait is None:
            return False
        await self._rounds.insist(lambda: self._room.settle_poll(poll, next_in=wait, event=None, troubles=poll.troubles))
        return True

    async def _settle(self, poll: Poll, heard: _Heard, took: float) -> None:
        """End the task, or have it asked again."""
        reading, now = heard.reading, self._clock()
        troubles = poll.troubles + 1 if isinstance(reading, Trouble) else 0
        interval, wishes = poll.config.interval, heard.answer.headers if heard.answer else ()
        if _awaits_word(poll) and not troubles:
            # One who is expected to call by himself is asked once more, at the end.
            interval, wishes = math.inf, ()
        wait = next_question(interval, poll.waits_until / 1000 - now, troubles, wishes, now)
        last_word = _last_word(reading, heard.answer, is_last=wait is None)
        if last_word is not None:
            last_word = self._kept(poll, last_word)
            resolved = await self._rounds.insist(lambda: self._room.resolve(poll.key, Channel.POLL, last_word))
            if resolved is Resolved.ENDED:
                self._announce(Finished(poll.request_id, 0, last_word.failure or last_word.response, took))
            return
        event = reading.status if isinstance(reading, Running) else None
        held = await self._rounds.insist(lambda: self._room.settle_poll(poll, next_in=wait, event=event, troubles=troubles))
        if held and isinstance(reading, Trouble):
            self._announce(PollFailed(poll.request_id, poll.number, reading.error, wait or 0.0))
        elif held:
            self._announce(Polled(poll.request_id, poll.number, event, wait or 0.0))


def _awaits_word(poll: Poll) -> bool:
    return poll.task.spec.callback or poll.task.spec.signal


def _cannot_ask(poll: Poll, error: str) -> Reading:
    """Who is expected to call by himself may still do so, whether he can be asked or not."""
    return Trouble(error) if _awaits_word(poll) else Failed(error)


def _last_word(reading: Reading, answer: StoredResponse | None, *, is_last: bool) -> Resolution | None:
    """How the task ends; None as long as it does not. After the last question it is a time-out."""
    heard = answer or StoredResponse(504, (), b"")
    if isinstance(reading, Done):
        return Resolution(reading.response)
    if isinstance(reading, Failed):
        return Resolution(heard, Failure(ErrorType.PROVIDER_FAILED, reading.error))
    return Resolution(heard, Failure(ErrorType.WAIT_TIMEOUT, _too_late(reading))) if is_last else None


def _too_late(reading: Reading) -> str:
    text = "the provider was not done in time"
    if isinstance(reading, Trouble):
        return f"{text}; the last question came to nothing: {reading.error}" + (f": {reading.said}" if reading.said else "")
    if isinstance(reading, Running) and reading.status is not None:
        return f"{text}; the last status was {reading.status}"
    return text
