import pytest

from queue_middleware.errors import RateLimited
from queue_middleware.web.rate_limit import MAX_FAILURES, WINDOW, LookupLimiter
from tests.support.clock import Seconds


def test_thirty_failures_a_minute_are_allowed() -> None:
    clock = Seconds(1000.0)
    guesses = LookupLimiter(clock)
    for _ in range(MAX_FAILURES):
        guesses.count("192.0.2.7")
        clock.now += 1
    with pytest.raises(RateLimited) as refusal:
        guesses.count("192.0.2.7")
    assert (refusal.value.status, refusal.value.headers) == (429, ((b"retry-after", b"31"),))
    guesses.count("192.0.2.8")


@pytest.mark.parametrize("pause", [0.0, 0.3, 1.0, 1.9])
def test_a_client_that_waits_for_retry_after_is_accepted(pause: float) -> None:
    clock = Seconds(1000.0)
    guesses = LookupLimiter(clock)
    accepted = 0
    for _ in range(200):
        try:
            guesses.count("192.0.2.7")
        except RateLimited as refusal:
            clock.now += refusal.retry_after
            guesses.count("192.0.2.7")
            accepted += 1
        clock.now += pause
    assert accepted > 1


def test_failures_expire_after_a_minute() -> None:
    clock = Seconds(1000.0)
    guesses = LookupLimiter(clock)
    for _ in range(MAX_FAILURES):
        guesses.count("192.0.2.7")
    clock.now += WINDOW
    guesses.count("192.0.2.7")


def test_a_client_that_continues_stays_refused() -> None:
    clock = Seconds(1000.0)
    guesses = LookupLimiter(clock)
    refused = 0
    for _ in range(300):
        try:
            guesses.count("192.0.2.7")
        except RateLimited:
            refused += 1
        clock.now += 1
    assert refused == 270


def test_memory_is_bounded() -> None:
    guesses = LookupLimiter(Seconds(1000.0))
    for number in range(10_500):
        guesses.count(str(number))
    assert len(guesses._failed) == 10_000


def test_the_limiter_needs_no_event_loop():
    """That of an endpoint is made before there is one, and a queue may be started again in another one."""
    LookupLimiter().count("192.0.2.1")
