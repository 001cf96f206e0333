"""The keys that sign webhooks, and the rules of their rotation. Pure: times are arguments, in Unix seconds.

As text, in the option `signing_key` or in a file: seeds of 64 hex digits, separated by commas or white space. A seed may be
followed by the time from which it signs, `<seed>@2026-01-31T00:00:00Z`. One without a time signs until the first one with a
time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from queue_middleware.errors import RotationRefused, SettingsError
from queue_middleware.jobs.struct import Struct

from .keys import KeyPair

MIN_LEAD_TIME = 24 * 3600.0
"""Seconds for which receivers cache a key set, at most; a key is published for as long before it signs."""
LEAD_TIME = MIN_LEAD_TIME + 3600.0
"""The default: an hour more, for caches in between, clocks that differ, and processes that read the new keys late."""
KEPT = 48 * 3600.0
"""Seconds for which a key stays published after the next one has replaced it."""

_MAX_LEAD_TIME = 366 * 24 * 3600.0
_ALWAYS = -math.inf


class KeyStatus(StrEnum):
    """The phase of a key at a time."""

    NEXT = "next"
    ACTIVE = "active"
    OLD = "old"
    RETIRED = "retired"
    SPARE = "spare"


class KeyUse(Struct, frozen=True):
    """What a key is used for. `signs` is about the signatures of Standard Webhooks; fal's only one is the active key's."""

    published: bool
    signs: bool


#                                             from                          until
RULES = {
    KeyStatus.NEXT: KeyUse(True, False),  #    it is created                 its time
    KeyStatus.ACTIVE: KeyUse(True, True),  #   its time                      the time of the next key
    KeyStatus.OLD: KeyUse(True, True),  #      the time of the next key      48 h later
    KeyStatus.RETIRED: KeyUse(False, False),  # then                         the next rotation deletes it
    KeyStatus.SPARE: KeyUse(True, False),  #   it is created without a time  the first key without a time is retired
}


class Key:
    """One key of a ring. `since` is when it starts to sign; None if no time was given."""

    def __init__(self, pair: KeyPair, since: float | None = None) -> None:
        self.pair = pair
        self.since = since

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `<seed>` or `<seed>@<time>`. Raises `SettingsError`, whose text never contains the seed."""
        seed, separator, time = text.partition("@")
        return cls(KeyPair.from_hex(seed), _parse_time(time) if separator else None)

    def __repr__(self) -> str:
        """For logs and debuggers: the public name only."""
        return f"<Key {self.pair.kid}>"

    def dump(self) -> str:
        """As text, private key included."""
        seed = self.pair.seed_hex()
        return seed if self.since is None else f"{seed}@{format_time(self.since)}"


class KeyRing:
    """Keys in the order in which they sign, spare ones last. Raises `SettingsError` for no key, or a repeated one."""

    def __init__(self, keys: Iterable[Key]) -> None:
        keys = tuple(keys)
        timeless = [key for key in keys if key.since is None]
        timed = sorted((key for key in keys if key.since is not None), key=_starts_at)
        self._line = (*timeless[:1], *timed)
        self._spare = tuple(timeless[1:])
        if not keys:
            raise SettingsError("there is no signing key")
        if len({key.pair.kid for key in keys}) < len(keys):
            raise SettingsError("the same signing key is there twice; remove one of them")

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

    def dump(self) -> str:
        """As the text of a file: a line for each key, private keys included."""
        return "".join(f"{key.dump()}\n" for key in self.keys)

    @property
    def keys(self) -> tuple[Key, ...]:
        """All of them."""
        return self._line + self._spare

    def active(self, now: float) -> KeyPair:
        """The key that signs. There always is one: without an earlier key, the first signs before its time too."""
        return self._line[self._active_index(now)].pair

    def status(self, key: Key, now: float) -> KeyStatus:
        """The status of a key of this ring."""
        index, active, until = self._index(key), self._active_index(now), self.published_until(key)
        if index < active and until is not None and now >= until:
            return KeyStatus.RETIRED
        if key in self._spare:
            return KeyStatus.SPARE
        if index < active:
            return KeyStatus.OLD
        return KeyStatus.ACTIVE if index == active else KeyStatus.NEXT

    def published_until(self, key: Key) -> float | None:
        """When a key of this ring is no longer published; None if no other key follows it."""
        after = self._index(key) + 1
        return None if after == len(self._line) else _starts_at(self._line[after]) + KEPT

    def published(self, now: float) -> tuple[KeyPair, ...]:
        """The keys in the published key set."""
        return tuple(key.pair for key in self.keys if RULES[self.status(key, now)].published)

    def signing(self, now: float) -> tuple[KeyPair, ...]:
        """The keys that sign: the active key last, before it the earlier ones that are not retired yet."""
        return tuple(key.pair for key in self._line if RULES[self.status(key, now)].signs)

    def rotated(self, new: KeyPair, now: float, lead_time: float = LEAD_TIME) -> KeyRing:
        """With a new key that signs in `lead_time` seconds, and without retired keys.

        Raises `RotationRefused` while another new key waits for its time, or if receivers would not fetch the key in time.
        """
        if not MIN_LEAD_TIME <= lead_time <= _MAX_LEAD_TIME:
            raise RotationRefused(
                "receivers cache a key set for a day, so a new key has to be published for 24 h before it signs, "
                "and for a year at most"
            )
        for key in self._line:
            if self.status(key, now) is KeyStatus.NEXT:
                time = format_time(_starts_at(key))
                raise RotationRefused(
                    f"a rotation is in progress: key {key.pair.kid} signs from {time}; rotate again after that"
                )
        kept = (key for key in self.keys if self.status(key, now) is not KeyStatus.RETIRED)
        return KeyRing((*kept, Key(new, math.ceil(now + lead_time))))

    def _index(self, key: Key) -> int:
        """In the line of keys that sign. Spare keys have the index of the first key without a time, and retire with it."""
        return 0 if key in self._spare else self._line.index(key)

    def _active_index(self, now: float) -> int:
        return max((index for index, key in enumerate(self._line) if _starts_at(key) <= now), default=0)


def jwks(pairs: Sequence[KeyPair]) -> dict[str, list[dict[str, str]]]:
    """The JSON Web Key Set `{"keys": […]}` with each key twice: first `x` without padding, then with.

    RFC 7517 requires `x` without padding; fal's documented Python receiver needs padding. Receivers try every key, so both
    are served (docs/reference/protocols/fal.md, section 9).
    """
    return {"keys": [pair.jwk(padded=padded) for pair in pairs for padded in (False, True)]}


def format_time(seconds: float) -> str:
    """`2026-01-31T00:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_time(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError
        return time.timestamp()
    except (ValueError, OverflowError):
        # The text is not repeated, because by a typing error it may be a part of the seed.
        raise SettingsError("the time of a signing key is written like this: <seed>@2026-01-31T00:00:00Z") from None


def _starts_at(key: Key) -> float:
    return _ALWAYS if key.since is None else key.since
