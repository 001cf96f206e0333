"""Resolves host names in threads of its own, so that slow lookups do not occupy threads that the application needs.

`getaddrinfo` cannot be cancelled, so a lookup that hangs keeps its thread. Names that do not resolve must not take the threads
of names that do: each domain gets a small share of the threads, and names that have never been resolved leave some to those
that have. A name that was not found is not looked up again for some seconds.
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
"""Concurrent lookups."""
UNKNOWN_SHARE = 0.75
"""Share of the lookups for names that have never been resolved."""
DOMAIN_SHARE = 0.0625
"""Share of the lookups for names of one domain."""
NEGATIVE_TTL = 3.0
"""Seconds for which a name that was not found is not looked up again: less than the first wait of a webhook schedule."""
_MAX_REMEMBERED = 4096
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"})
"""Second levels of country domains: `example.co.uk` is the domain and not `co.uk`."""

T = TypeVar("T")
_Error = OSError | UnicodeError


class ThreadedResolver:
    """Resolves names with `getaddrinfo`. Belongs to one event loop.

    A caller that times out stops waiting while the thread finishes; concurrent lookups of one name share a thread. `clock`
    returns monotonic seconds.
    """

    def __init__(self, most: int = MAX_LOOKUPS, clock: Callable[[], float] | None = None) -> None:
        self._most = most
        self._unknown = max(1, int(most * UNKNOWN_SHARE))
        self._each = max(1, int(most * DOMAIN_SHARE))
        self._clock = clock or asyncio.get_running_loop().time
        self._running: dict[tuple[str, int], asyncio.Future[Sequence[str]]] = {}
        self._groups: Counter[tuple[str, bool]] = Counter()
        """Running lookups by domain, and by whether the names have been resolved before."""
        self._known: OrderedDict[str, None] = OrderedDict()
        self._not_found: OrderedDict[str, tuple[float, _Error]] = OrderedDict()

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """All addresses, in the order in which they are tried.

        Raises `OSError`, `UnicodeError`, `OutboundBusy` if too many lookups are running, and `OutboundShortage` if no thread
        can be started.
        """
        result = self._running.get((host, port))
        if result is None:
            self._raise_if_not_found(host)
            result = self._start(host, port)
        return await asyncio.shield(result)

    def _raise_if_not_found(self, host: str) -> None:
        found = self._not_found.get(host)
        if found is not None and self._clock() < found[0]:
            raise type(found[1])(*found[1].args)

    def _group(self, host: str) -> tuple[str, bool]:
        """The domain that a lookup is counted for. Raises `OutboundBusy` if its share is used up."""
        known, domain = host in self._known, domain_of(host)
        if self._groups[domain, known] >= self._each:
            raise OutboundBusy(f"too many names below {domain} are being looked up at once")
        unknown = sum(count for (_, is_known), count in self._groups.items() if not is_known)
        if len(self._running) >= self._most or (not known and unknown >= self._unknown):
            raise OutboundBusy("too many names are being looked up at once")
        return domain, known

    def _start(self, host: str, port: int) -> asyncio.Future[Sequence[str]]:
        group = self._group(host)
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Sequence[str]] = loop.create_future()
        # A daemon thread: the process does not wait for it when it ends.
        thread = threading.Thread(target=_look_up, args=(loop, result, host, port), name="queue-names", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise OutboundShortage("no thread can be started to look up a name") from None
        # Registered only now: without a running thread, later callers would wait forever for this result.
        self._running[host, port] = result
        self._groups[group] += 1
        result.add_done_callback(lambda done: self._on_done(host, port, group, done))
        return result

    def _on_done(self, host: str, port: int, group: tuple[str, bool], result: asyncio.Future[Sequence[str]]) -> None:
        self._running.pop((host, port), None)
        self._groups[group] -= 1
        if not self._groups[group]:
            del self._groups[group]
        if result.cancelled():
            return
        error = result.exception()  # marks it as retrieved: all callers may have timed out
        if error is None:
            self._not_found.pop(host, None)
            _remember(self._known, host, None)
        elif isinstance(error, UnicodeError | socket.gaierror):
            self._known.pop(host, None)
            _remember(self._not_found, host, (self._clock() + NEGATIVE_TTL, error))


def domain_of(host: str) -> str:
    """The last two labels of a name, or three below the second level of a country."""
    labels = host.rstrip(".").lower().split(".")
    many = 3 if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL else 2
    return ".".join(labels[-many:])


def _remember(kept: OrderedDict[str, T], host: str, value: T) -> None:
    kept[host] = value
    kept.move_to_end(host)
    if len(kept) > _MAX_REMEMBERED:
        kept.popitem(last=False)


def _look_up(loop: asyncio.AbstractEventLoop, result: asyncio.Future[Sequence[str]], host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        _deliver(loop, result, _shortage(error) or error)
    else:
        _deliver(loop, result, list(dict.fromkeys(str(address[0]) for *_, address in found)))


def _shortage(error: _Error) -> OSError | None:
    """The shortage of this process that made the resolver fail, if there is one; the resolver's own error does not name it."""
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_MEMORY:
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as lacking:
        return lacking
    return None


def _deliver(loop: asyncio.AbstractEventLoop, result: asyncio.Future[Sequence[str]], found: Sequence[str] | _Error) -> None:
    def settle() -> None:
        if result.done():
            return
        if isinstance(found, OSError | UnicodeError):
            result.set_exception(found)
        else:
            result.set_result(found)

    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(settle)
