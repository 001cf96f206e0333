import asyncio
import socket
import threading

import pytest

from queue_middleware import names as module
from queue_middleware.errors import OutboundBusy
from queue_middleware.names import Names

FOUND = [
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 443)),
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::7", 443, 0, 0)),
]


class System:
    """In place of the system's resolver: it answers when its gate is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, found: object = FOUND) -> None:
        self.found, self.gate, self.asked = found, threading.Event(), []
        monkeypatch.setattr(module.socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, **_: object) -> object:
        self.asked.append((host, threading.current_thread()))
        self.gate.wait(10)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


async def test_addresses_come_in_order_each_once(monkeypatch):
    system = System(monkeypatch, [*FOUND, FOUND[0]])
    system.gate.set()
    assert await Names().resolve("a.example", 443) == ["192.0.2.7", "2001:db8::7"]


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
async def test_what_went_wrong_is_told(monkeypatch, error):
    System(monkeypatch, error).gate.set()
    names = Names()
    for _ in range(2):
        with pytest.raises(type(error)):
            await names.resolve("a.example", 443)


async def test_the_threads_of_the_loop_are_left_alone(monkeypatch):
    """They are few, and the application's `def` endpoints run in them."""
    system = System(monkeypatch)
    asking = [asyncio.create_task(Names().resolve(f"{number}.example", 443)) for number in range(40)]
    async with asyncio.timeout(5):
        while len(system.asked) < 40:
            await asyncio.sleep(0.001)
        assert await asyncio.to_thread(lambda: "free") == "free"
    system.gate.set()
    await asyncio.gather(*asking)
    assert all(thread.daemon for _, thread in system.asked)


async def test_those_who_ask_for_one_name_wait_for_one_answer(monkeypatch):
    system = System(monkeypatch)
    names = Names()
    asking = [asyncio.create_task(names.resolve("a.example", 443)) for _ in range(5)]
    await asyncio.sleep(0)
    asking.pop().cancel()
    system.gate.set()
    assert await asyncio.gather(*asking) == [["192.0.2.7", "2001:db8::7"]] * 4
    assert len(system.asked) == 1


async def test_one_that_gave_up_waiting_harms_nobody(monkeypatch):
    system = System(monkeypatch, socket.gaierror(-3, "Temporary failure in name resolution"))
    names = Names()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await names.resolve("a.example", 443)
    system.gate.set()
    with pytest.raises(socket.gaierror):
        await names.resolve("a.example", 443)


async def test_there_is_an_end_to_the_threads(monkeypatch):
    system = System(monkeypatch)
    names = Names(most=2)
    asking = [asyncio.create_task(names.resolve(name, 443)) for name in ("a.example", "b.example")]
    await asyncio.sleep(0)
    with pytest.raises(OutboundBusy, match="too many names"):
        await names.resolve("c.example", 443)
    system.gate.set()
    await asyncio.gather(*asking)
    assert await names.resolve("c.example", 443)


async def test_a_name_that_no_thread_was_left_for_can_be_asked_for_again(monkeypatch):
    system = System(monkeypatch)
    system.gate.set()
    names = Names()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
        with pytest.raises(OutboundBusy, match="no thread"):
            await names.resolve("a.example", 443)
    async with asyncio.timeout(10):
        assert await names.resolve("a.example", 443)


def test_an_answer_after_the_end_of_the_loop_is_dropped(monkeypatch):
    system = System(monkeypatch)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Names().resolve("a.example", 443)

    asyncio.run(give_up())
    system.gate.set()
    for _, thread in system.asked:
        thread.join(10)
