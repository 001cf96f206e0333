"""When a provider is polled next, and how polls are shared between hosts."""

import math

import pytest

from queue_middleware.tasks.models import PollCapacity
from queue_middleware.tasks.polling.schedule import HostSelector, PollLimiter, first_poll_delay, next_poll_delay
from queue_middleware.webhooks.circuit import PROMPT_SECONDS

NOW = 1_700_000_000.0


def retry_after(value: bytes):
    return ((b"retry-after", value),)


@pytest.mark.parametrize(
    ("interval", "time_left", "failures", "headers", "delay"),
    [
        (5.0, 600.0, 0, (), 5.0),
        (5.0, 3.0, 0, (), 3.0),  # the last poll, at the deadline
        (5.0, 0.0, 0, (), None),
        (5.0, -1.0, 0, (), None),
        (300.0, 600.0, 0, (), 300.0),
        # after failures: longer delays, but not as long as the interval of a task that waits for a callback
        (10.0, 600.0, 1, (), 5.0),
        (3.0, 600.0, 1, (), 3.0),
        (3.0, 600.0, 2, (), 6.0),
        (3.0, 600.0, 3, (), 12.0),
        (3.0, 600.0, 9, (), 60.0),
        (3.0, 600.0, 99_999, (), 60.0),
        (300.0, 600.0, 1, (), 5.0),
        (300.0, 2.0, 1, (), 2.0),
        # Retry-After
        (5.0, 600.0, 0, retry_after(b"20"), 20.0),
        (5.0, 600.0, 0, retry_after(b"2"), 2.0),
        (5.0, 600.0, 3, retry_after(b"20"), 20.0),
        (5.0, 9_999.0, 0, retry_after(b"86400"), 3600.0),
        (5.0, 10.0, 0, retry_after(b"86400"), 10.0),
        (5.0, 600.0, 0, retry_after(b"0"), 5.0),
        (5.0, 600.0, 0, retry_after(b"soon"), 5.0),
        (5.0, 600.0, 0, retry_after(b"Tue, 14 Nov 2023 22:13:50 GMT"), 30.0),
    ],
)
def test_next_poll_delay(interval, time_left, failures, headers, delay):
    assert next_poll_delay(interval, time_left, failures, headers, NOW) == delay


def test_with_an_expected_callback_polls_are_at_half_time_and_at_the_deadline():
    assert first_poll_delay(5.0, 600.0, retry_after(b"20"), NOW, expects_call=True) == 300.0
    assert next_poll_delay(math.inf, 300.0, 0, (), NOW) == 300.0
    assert next_poll_delay(math.inf, 0.0, 0, (), NOW) is None


def test_without_an_expected_callback_the_first_poll_is_after_interval_or_retry_after():
    assert first_poll_delay(5.0, 600.0, (), NOW, expects_call=False) == 5.0
    assert first_poll_delay(5.0, 600.0, retry_after(b"20"), NOW, expects_call=False) == 20.0
    assert first_poll_delay(5.0, 2.0, (), NOW, expects_call=False) == 2.0


# --- capacity


def test_capacity_is_free_until_the_limit():
    limiter = PollLimiter(2)
    limiter.begin(1, "a")
    capacity = limiter.capacity()
    assert capacity is not None
    assert (capacity.limit, dict(capacity.busy)) == (1, {"a": 1})
    limiter.begin(2, "b")
    assert limiter.capacity() is None
    limiter.end(1)
    limiter.end(1)
    capacity = limiter.capacity()
    assert capacity is not None
    assert (capacity.limit, dict(capacity.busy)) == (1, {"b": 1})


@pytest.mark.parametrize(("limit", "each", "unproven"), [(1, 1, 1), (2, 1, 2), (3, 2, 3), (4, 2, 3), (8, 4, 6)])
def test_half_for_one_host_and_three_quarters_for_unproven_hosts(limit, each, unproven):
    capacity = PollLimiter(limit).capacity()
    assert capacity is not None
    assert (capacity.per_host, capacity.unproven) == (each, unproven)


def test_a_host_is_proven_after_a_prompt_response_until_a_slow_one():
    limiter = PollLimiter(8)
    limiter.begin(1, "a")
    limiter.record_duration("a", PROMPT_SECONDS)
    limiter.begin(2, "a")
    limiter.record_duration("b", PROMPT_SECONDS + 0.1)
    limiter.begin(3, "b")
    capacity = limiter.capacity()
    assert capacity is not None
    assert capacity.prompt == {"a"}
    assert capacity.unproven == 6 - 2, "a poll counts as it was classified when it began"
    limiter.record_duration("a", PROMPT_SECONDS + 0.1)
    capacity = limiter.capacity()
    assert capacity is not None
    assert capacity.prompt == set()


def test_the_number_of_remembered_hosts_is_bounded():
    limiter = PollLimiter(8)
    for number in range(5000):
        limiter.record_duration(f"host{number}", 0.1)
    capacity = limiter.capacity()
    assert capacity is not None
    assert len(capacity.prompt) <= 1000
    assert "host4999" in capacity.prompt


def test_capacity_is_given_in_the_order_of_requests():
    selector = HostSelector(PollCapacity(4, unproven=2, per_host=2, busy={"c": 1}, prompt=frozenset({"c", "d"})))
    assert [selector.take(host) for host in "aabcccddd"] == [True, True, False, True, False, False, True, False, False]
    assert selector.left == 0
