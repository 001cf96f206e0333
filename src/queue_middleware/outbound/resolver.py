"""Looks names up, in threads of its own: one that takes half a minute must not keep threads that the application needs.

`getaddrinfo` cannot be cancelled, so a look-up that hangs keeps its thread. Names that do not resolve must not take the threads
from those that do: names below one domain get a small part of them, and names that were not resolved before leave some to those
that were. A name that was not found is not asked for again for some seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

from queue_middleware.errors import OutboundBusy, OutboundShortage

MAX_LOOKUPS = 256
"""Look-ups at once."""
UNKNOWN_SHARE = 0.75
"""Share of them for names that were not resolved before."""
DOMAIN_SHARE = 0.0625
"""Share of them for names below one domain."""
NEGATIVE_TTL = 3.0
"""Seconds for which a name that was not found is not asked for again: less than the first wait of a schedule."""
_MOST_KEPT = 4096
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"})
"""Below a country: `example.co.uk` is the domain and not `co.uk`."""

T = TypeVar("T")
_Error = OSError | UnicodeError


class ThreadedResolver:
    """Asks the system's resolver. Belongs to one event loop.

    A caller with a time limit waits no longer than that, and the thread goes on without it; another that asks for the same name
    meanwhile waits for the same answer. `clock` gives seconds that only grow.
    """

    def __init__(self, most: int = MAX_LOOKUPS, clock: Callable[[], float] | None = None) -> None:
        self._most = most
        self._unknown = max(1, int(most * UNKNOWN_SHARE))
        self._each = max(1, int(most * DOMAIN_SHARE))
        self._clock = clock or asyncio.get_running_loop().time
        self._asked: dict[tuple[str, int], asyncio.Future[Sequence[str]]] = {}
        self._groups: Counter[tuple[str, bool]] = Counter()
        """Look-ups under way by domain, and whether the names were resolved before."""
        self._known: OrderedDict[str, None] = OrderedDict()
        self._not_found: OrderedDict[str, tuple[float, _Error]] = OrderedDict()

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """All addresses, in the order in which they are to be tried.

        Raises `OSError`, `UnicodeError`, `OutboundBusy` where too many such names are looked up already, and `OutboundShortage`
        where there is no thread.
        """
        answer = self._asked.get((host, port))
        if answer is None:
            self._raise_not_found(host)
            answer = self._ask(host, port)
        return await asyncio.shield(answer)

    def _raise_not_found(self, host: str) -> None:
        found = self._not_found.get(host)
        if found is not None and self._clock() < found[0]:
            raise type(found[1])(*found[1].args)

    def _group(self, host: str) -> tuple[str, bool]:
        """The domain that a look-up is counted for. Raises `OutboundBusy` where it has all that it may have."""
        known, domain = host in self._known, domain_of(host)
        if self._groups[domain, known] >= self._each:
            raise OutboundBusy(f"too many names below {domain} are being looked up at once")
        unknown = sum(count for (_, is_known), count in self._groups.items() if not is_known)
        if len(self._asked) >= self._most or (not known and unknown >= self._unknown):
            raise OutboundBusy("too many names are being looked up at once")
        return domain, known

    def _ask(self, host: str, port: int) -> asyncio.Future[Sequence[str]]:
        group = self._group(host)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()
        # A daemon: the process does not wait for it at its end.
        thread = threading.Thread(target=_look_up, args=(loop, answer, host, port), name="queue-names", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise OutboundShortage("there is no thread to look up a name") from None
        # Only now: for an answer that no thread looks for, the next caller would wait in vain, and so on for ever.
        self._asked[host, port] = answer
        self._groups[group] += 1
        answer.add_done_callback(lambda done: self._answered(host, port, group, done))
        return answer

    def _answered(self, host: str, port: int, group: tuple[str, bool], answer: asyncio.Future[Sequence[str]]) -> None:
        self._asked.pop((host, port), None)
        self._groups[group] -= 1
        if not self._groups[group]:
            del self._groups[group]
        if answer.cancelled():
            return
        error = answer.exception()  # all callers may be gone; then it must not be warned about
        if error is None:
            self._not_found.pop(host, None)
            _remember(self._known, host, None)
        elif isinstance(error, UnicodeError | socket.gaierror):
            self._known.pop(host, None)
            _remember(self._not_found, host, (self._clock() + NEGATIVE_TTL, error))


def domain_of(host: str) -> str:
    """The last two labels, or three below a country's second level."""
    labels = host.rstrip(".").lower().split(".")
    many = 3 if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL else 2
    return ".".join(labels[-many:])


def _remember(kept: OrderedDict[str, T], host: str, value: T) -> None:
    kept[host] = value
    kept.move_to_end(host)
    if len(kept) > _MOST_KEPT:
        kept.popitem(last=False)


def _look_up(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Sequence[str]], host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        _tell(loop, answer, _shortage(error) or error)
    else:
        _tell(loop, answer, list(dict.fromkeys(str(address[0]) for *_, address in found)))


def _shortage(error: _Error) -> OSError | None:
    """What this process lacks, where the resolver failed for that: it says only that it failed."""
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_MEMORY:
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as lacking:
        return lacking
    return None


def _tell(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Sequence[str]], found: Sequence[str] | _Error) -> None:
    def settle() -> None:
        if answer.done():
            return
        if isinstance(found, OSError | UnicodeError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    with contextlib.suppress(RuntimeError):  # the loop was closed under us
        loop.call_soon_threadsafe(settle)
