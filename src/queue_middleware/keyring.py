"""The keys that sign webhooks, and the law of their rotation. Pure: time is an argument, in Unix seconds.

As text, in the option `signing_key` or in a file: seeds of 64 hex digits, separated by commas or white space, each perhaps with
the time from which it signs, `<seed>@2026-01-31T00:00:00Z`. One without a time signs until one with a time begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from .errors import RotationRefused, SettingsError
from .keys import KeyPair
from .value import Value

LEAST_NOTICE = 24 * 3600.0
"""Seconds for which receivers keep a key set, at most; for as long a key is published before it signs."""
NOTICE = LEAST_NOTICE + 3600.0
"""What it is unless asked for: an hour more for caches between, for clocks that differ, for processes that notice late."""
KEPT = 48 * 3600.0
"""Seconds for which a key stays published after it was followed by another."""

_LONGEST_NOTICE = 366 * 24 * 3600.0
_ALWAYS = -math.inf


class Standing(StrEnum):
    """Where a key stands at a time."""

    NEXT = "next"
    ACTIVE = "active"
    OLD = "old"
    RETIRED = "retired"
    SPARE = "spare"


class Rights(Value, frozen=True):
    """What is done with a key. `signs` means Standard Webhooks' list of signatures; fal's only one is the active key's."""

    published: bool
    signs: bool


#                                            from                         until
LAW = {
    Standing.NEXT: Rights(True, False),  #    it is made                   its time
    Standing.ACTIVE: Rights(True, True),  #   its time                     the time of the one after it
    Standing.OLD: Rights(True, True),  #      the time of the one after    48 h later
    Standing.RETIRED: Rights(False, False),  # then                        it is erased, by the next rotation
    Standing.SPARE: Rights(True, False),  #   it is made, without a time    the first without a time is retired
}


class Key:
    """One key of a ring. `since` is when it begins to sign; None where no time was written."""

    def __init__(self, pair: KeyPair, since: float | None = None) -> None:
        self.pair = pair
        self.since = since

    @classmethod
    def parse(cls, word: str) -> Self:
        """From `<seed>` or `<seed>@<time>`. Raises `SettingsError`, which never repeats the seed."""
        seed, separator, time = word.partition("@")
        return cls(KeyPair.from_hex(seed), _parse_time(time) if separator else None)

    def __repr__(self) -> str:
        """For logs and debuggers: the public name only."""
        return f"<Key {self.pair.kid}>"

    def written(self) -> str:
        """As it is written down, private half included."""
        seed = self.pair.seed_hex()
        return seed if self.since is None else f"{seed}@{write_time(self.since)}"


class KeyRing:
    """Keys in the order in which they sign, the spare ones last. Raises `SettingsError` for none, or the same one twice."""

    def __init__(self, keys: Iterable[Key]) -> None:
        keys = tuple(keys)
        timeless = [key for key in keys if key.since is None]
        timed = sorted((key for key in keys if key.since is not None), key=_begins)
        self._line = (*timeless[:1], *timed)
        self._spare = tuple(timeless[1:])
        if not keys:
            raise SettingsError("there is no signing key")
        if len({key.pair.kid for key in keys}) < len(keys):
            raise SettingsError("the same signing key is there twice")

    @classmethod
    def of(cls, *pairs: KeyPair) -> Self:
        """Keys without a time: the first signs, all are published."""
        return cls(map(Key, pairs))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text of an option or a file. Raises `SettingsError`."""
        return cls(map(Key.parse, text.replace(",", " ").split()))

    def __repr__(self) -> str:
        """For logs and debuggers: the public names only."""
        return f"<KeyRing {' '.join(key.pair.kid for key in self.keys)}>"

    def written(self) -> str:
        """As it is written to a file: a line for each key, private halves included."""
        return "".join(f"{key.written()}\n" for key in self.keys)

    @property
    def keys(self) -> tuple[Key, ...]:
        """All of them."""
        return self._line + self._spare

    def active(self, now: float) -> KeyPair:
        """The key that signs. There always is one: the first signs before its time too, if there is none before it."""
        return self._line[self._turn(now)].pair

    def standing(self, key: Key, now: float) -> Standing:
        """Of a key of this ring."""
        place, turn, until = self._place(key), self._turn(now), self.published_until(key)
        if place < turn and until is not None and now >= until:
            return Standing.RETIRED
        if key in self._spare:
            return Standing.SPARE
        if place < turn:
            return Standing.OLD
        return Standing.ACTIVE if place == turn else Standing.NEXT

    def published_until(self, key: Key) -> float | None:
        """When a key of this ring is no longer published; None where no other key follows it."""
        after = self._place(key) + 1
        return None if after == len(self._line) else _begins(self._line[after]) + KEPT

    def published(self, now: float) -> tuple[KeyPair, ...]:
        """The keys that receivers are to know."""
        return tuple(key.pair for key in self.keys if LAW[self.standing(key, now)].published)

    def signing(self, now: float) -> tuple[KeyPair, ...]:
        """The active key, last, and before it those that it has followed and that are not retired yet."""
        return tuple(key.pair for key in self._line if LAW[self.standing(key, now)].signs)

    def rotated(self, new: KeyPair, now: float, notice: float = NOTICE) -> KeyRing:
        """With a new key that signs in `notice` seconds, and without those that are retired.

        Raises `RotationRefused` while another waits for its time, or for a notice that receivers would not see.
        """
        if not LEAST_NOTICE <= notice <= _LONGEST_NOTICE:
            raise RotationRefused(
                "receivers keep a key set for a day: a new key has to be published for 24 h before it signs, and a year at most"
            )
        for key in self._line:
            if self.standing(key, now) is Standing.NEXT:
                when = write_time(_begins(key))
                raise RotationRefused(f"a rotation is under way: key {key.pair.kid} signs from {when}")
        kept = (key for key in self.keys if self.standing(key, now) is not Standing.RETIRED)
        return KeyRing((*kept, Key(new, math.ceil(now + notice))))

    def _place(self, key: Key) -> int:
        """In the line. Spare keys are in it with the one that has no time either: they came with it, and go with it."""
        return 0 if key in self._spare else self._line.index(key)

    def _turn(self, now: float) -> int:
        return max((place for place, key in enumerate(self._line) if _begins(key) <= now), default=0)


def jwks(pairs: Sequence[KeyPair]) -> dict[str, list[dict[str, str]]]:
    """`{"keys": […]}`, each key twice: `x` without padding first, then with.

    RFC 7517 wants none; fal's documented Python receiver fails without it. Receivers try every key, so both are served
    (fal queue contract, section 9).
    """
    return {"keys": [pair.jwk(padded=padded) for pair in pairs for padded in (False, True)]}


def write_time(seconds: float) -> str:
    """`2026-01-31T00:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_time(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError
        return time.timestamp()
    except (ValueError, OverflowError):
        # Not repeated: with a slip of the hand it could be a part of the seed.
        raise SettingsError("the time of a signing key is written like this: <seed>@2026-01-31T00:00:00Z") from None


def _begins(key: Key) -> float:
    return _ALWAYS if key.since is None else key.since
