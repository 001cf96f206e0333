import asyncio
import errno
import socket
import threading

import pytest

from queue_middleware.errors import OutboundBusy
from queue_middleware.outbound import resolver as module
from queue_middleware.outbound.resolver import NEGATIVE_TTL, ThreadedResolver, domain_of

FOUND = [
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 443)),
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::7", 443, 0, 0)),
]


class FakeSystemResolver:
    """Replaces the system's resolver: it returns when its gate is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, found: object = FOUND) -> None:
        self.found, self.gate, self.calls = found, threading.Event(), []
        monkeypatch.setattr(module.socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, **_: object) -> object:
        self.calls.append((host, threading.current_thread()))
        self.gate.wait(10)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


async def test_addresses_are_in_order_without_duplicates(monkeypatch):
    system = FakeSystemResolver(monkeypatch, [*FOUND, FOUND[0]])
    system.gate.set()
    assert await ThreadedResolver().resolve("a.example", 443) == ["192.0.2.7", "2001:db8::7"]


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
async def test_errors_of_the_system_are_raised(monkeypatch, error):
    FakeSystemResolver(monkeypatch, error).gate.set()
    names = ThreadedResolver()
    for _ in range(2):
        with pytest.raises(type(error)):
            await names.resolve("a.example", 443)


async def test_the_threads_of_the_event_loop_are_not_used(monkeypatch):
    """They are few, and the application's `def` endpoints run in them."""
    system = FakeSystemResolver(monkeypatch)
    lookups = [asyncio.create_task(ThreadedResolver().resolve(f"{number}.example", 443)) for number in range(40)]
    async with asyncio.timeout(5):
        while len(system.calls) < 40:
            await asyncio.sleep(0.001)
        assert await asyncio.to_thread(lambda: "free") == "free"
    system.gate.set()
    await asyncio.gather(*lookups)
    assert all(thread.daemon for _, thread in system.calls)


async def test_concurrent_lookups_of_one_name_share_one_call(monkeypatch):
    system = FakeSystemResolver(monkeypatch)
    names = ThreadedResolver()
    lookups = [asyncio.create_task(names.resolve("a.example", 443)) for _ in range(5)]
    await asyncio.sleep(0)
    lookups.pop().cancel()
    system.gate.set()
    assert await asyncio.gather(*lookups) == [["192.0.2.7", "2001:db8::7"]] * 4
    assert len(system.calls) == 1


async def test_a_cancelled_lookup_does_not_affect_others(monkeypatch):
    system = FakeSystemResolver(monkeypatch, socket.gaierror(-3, "Temporary failure in name resolution"))
    names = ThreadedResolver()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await names.resolve("a.example", 443)
    system.gate.set()
    with pytest.raises(socket.gaierror):
        await names.resolve("a.example", 443)


async def test_the_number_of_threads_is_limited(monkeypatch):
    system = FakeSystemResolver(monkeypatch)
    names = ThreadedResolver(most=4)  # a quarter of them are for names that were resolved before
    lookups = [asyncio.create_task(names.resolve(name, 443)) for name in ("a.example", "b.example", "d.example")]
    await asyncio.sleep(0)
    with pytest.raises(OutboundBusy, match="too many names"):
        await names.resolve("c.example", 443)
    system.gate.set()
    await asyncio.gather(*lookups)
    assert await names.resolve("c.example", 443)


async def test_a_name_for_which_no_thread_was_free_can_be_looked_up_again(monkeypatch):
    system = FakeSystemResolver(monkeypatch)
    system.gate.set()
    names = ThreadedResolver()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
        with pytest.raises(OutboundBusy, match="no thread"):
            await names.resolve("a.example", 443)
    async with asyncio.timeout(10):
        assert await names.resolve("a.example", 443)


def test_a_result_after_the_end_of_the_loop_is_dropped(monkeypatch):
    system = FakeSystemResolver(monkeypatch)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ThreadedResolver().resolve("a.example", 443)

    asyncio.run(give_up())
    system.gate.set()
    for _, thread in system.calls:
        thread.join(10)


async def test_names_that_hang_leave_threads_to_names_that_were_resolved_before(monkeypatch):
    system = FakeSystemResolver(monkeypatch)
    system.gate.set()
    names = ThreadedResolver(most=4)
    assert await names.resolve("good.example", 443)
    system.gate.clear()
    lookups = [asyncio.create_task(names.resolve(f"{number}.hanging{number}.example", 443)) for number in range(5)]
    await asyncio.sleep(0)
    assert [isinstance(task.exception(), OutboundBusy) for task in lookups if task.done()] == [True, True]
    known = asyncio.create_task(names.resolve("good.example", 443))
    await asyncio.sleep(0)
    assert not known.done(), "it is being looked up"
    system.gate.set()
    assert await known
    await asyncio.gather(*lookups, return_exceptions=True)


async def test_names_below_one_domain_share_a_part_of_the_threads(monkeypatch):
    system = FakeSystemResolver(monkeypatch)
    names = ThreadedResolver(most=32)
    lookups = [asyncio.create_task(names.resolve(f"a{number}.slow.example", 443)) for number in range(8)]
    await asyncio.sleep(0)
    refused = [task.exception() for task in lookups if task.done()]
    assert len(refused) == 6
    assert all(isinstance(error, OutboundBusy) and "slow.example" in str(error) for error in refused)
    other = asyncio.create_task(names.resolve("a.other.example", 443))
    await asyncio.sleep(0)
    assert not other.done()
    system.gate.set()
    assert await other
    await asyncio.gather(*lookups, return_exceptions=True)


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.example.com", "example.com"),
        ("Example.com.", "example.com"),
        ("shop.example.co.uk", "example.co.uk"),
        ("example.co", "example.co"),
        ("queue.fal.run", "fal.run"),
        ("localhost", "localhost"),
    ],
)
def test_names_that_count_as_one_domain(host, domain):
    assert domain_of(host) == domain


async def test_a_name_that_is_not_found_is_not_looked_up_again_at_once(monkeypatch):
    now = [0.0]
    system = FakeSystemResolver(monkeypatch, socket.gaierror(socket.EAI_NONAME, "not known"))
    system.gate.set()
    names = ThreadedResolver(clock=lambda: now[0])
    for _ in range(3):
        with pytest.raises(socket.gaierror, match="not known"):
            await names.resolve("a.example", 443)
    assert len(system.calls) == 1
    now[0], system.found = NEGATIVE_TTL, FOUND
    assert await names.resolve("a.example", 443)


async def test_a_lookup_without_file_descriptors_is_not_a_missing_name(monkeypatch):
    system = FakeSystemResolver(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "try again"))
    system.gate.set()
    names = ThreadedResolver()

    def full(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "open", full)
        with pytest.raises(OSError, match="Too many open files"):
            await names.resolve("a.example", 443)
    system.found = FOUND
    assert await names.resolve("a.example", 443), "it is not cached as a missing name"
