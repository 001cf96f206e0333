"""Looks names up, in threads of its own: one that takes half a minute must not keep threads that the application needs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence

from .errors import OutboundBusy

MOST = 256
"""Look-ups at once. There is one for each host that is being connected to, so one that hangs makes nobody else wait."""


class Names:
    """Asks the system's resolver. Belongs to one event loop.

    A look-up cannot be stopped, so whoever has a time limit waits no longer than that, and its thread goes on without him;
    somebody who asks for the same name meanwhile waits for the same answer.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._asked: dict[tuple[str, int], asyncio.Future[Sequence[str]]] = {}

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """All addresses, in the order in which they are to be tried. Raises `OSError`, `UnicodeError`, `OutboundBusy`."""
        answer = self._asked.get((host, port))
        if answer is None:
            if len(self._asked) >= self._most:
                raise OutboundBusy("too many names are being looked up at once")
            answer = self._ask(host, port)
        return await asyncio.shield(answer)

    def _ask(self, host: str, port: int) -> asyncio.Future[Sequence[str]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()
        # A daemon: the process does not wait for it at its end.
        thread = threading.Thread(target=_look_up, args=(loop, answer, host, port), name="queue-names", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise OutboundBusy("there is no thread to look up a name") from None
        # Only now: for an answer that nobody looks for, whoever asks next would wait in vain, and so on for ever.
        self._asked[host, port] = answer
        answer.add_done_callback(lambda done: self._answered((host, port), done))
        return answer

    def _answered(self, asked: tuple[str, int], answer: asyncio.Future[Sequence[str]]) -> None:
        self._asked.pop(asked, None)
        if not answer.cancelled():
            answer.exception()  # whoever asked may be gone; then nobody is to be warned about it


def _look_up(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Sequence[str]], host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        _tell(loop, answer, error)
    else:
        _tell(loop, answer, list(dict.fromkeys(str(address[0]) for *_, address in found)))


def _tell(
    loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Sequence[str]], found: Sequence[str] | OSError | UnicodeError
) -> None:
    def settle() -> None:
        if answer.done():
            return
        if isinstance(found, OSError | UnicodeError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    with contextlib.suppress(RuntimeError):  # the loop was closed under us
        loop.call_soon_threadsafe(settle)
