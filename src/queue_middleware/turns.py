"""How questions are shared out between providers, so that those who are slow leave places to the others. Pure.

A question holds its place until it is answered, and some providers take their time. So one of them gets only a part of the
places, and all that are not known to answer promptly together leave some to those that do.
"""

from __future__ import annotations

import math
from collections import Counter

from .circuit import PROMPT
from .tasks import Places

EACH = 0.5
"""Share of the places that one provider may take."""
STRANGERS = 0.75
"""Share of them for those who are not known to be prompt."""
_MOST_KNOWN = 1000


class Turns:
    """Who is being asked by this process, at most `limit` at once, and who of them is known to be prompt."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._asked: dict[int, tuple[str, bool]] = {}
        """Host, and whether it was a stranger when its turn began, by token."""
        self._prompt: set[str] = set()

    def places(self) -> Places | None:
        """Those that are free; None where there are none."""
        if len(self._asked) >= self._limit:
            return None
        strangers = sum(stranger for _, stranger in self._asked.values())
        return Places(
            limit=self._limit - len(self._asked),
            strangers=max(0, math.ceil(self._limit * STRANGERS) - strangers),
            each=math.ceil(self._limit * EACH),
            busy=Counter(host for host, _ in self._asked.values()),
            prompt=frozenset(self._prompt),
        )

    def begin(self, token: int, host: str) -> None:
        """A question is asked."""
        self._asked[token] = host, host not in self._prompt

    def end(self, token: int) -> None:
        """It was settled, or given up. Repeatable."""
        self._asked.pop(token, None)

    def judge(self, host: str, seconds: float) -> None:
        """How long a question took, whatever came of it."""
        if seconds > PROMPT:
            self._prompt.discard(host)
            return
        if len(self._prompt) >= _MOST_KNOWN:
            self._prompt.clear()
        self._prompt.add(host)


class Choice:
    """Who is to be asked of those that are due, in the order in which they come."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._busy = Counter(places.busy)
        self._strangers = places.strangers
        self.left = places.limit

    def take(self, host: str) -> bool:
        """Give it a place; False where it has to wait for one."""
        stranger = host not in self._places.prompt
        if not self.left or self._busy[host] >= self._places.each or (stranger and not self._strangers):
            return False
        self.left -= 1
        self._busy[host] += 1
        self._strangers -= stranger
        return True
