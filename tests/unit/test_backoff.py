from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_middleware.backoff import exponential, retry_after, scheduled

NOW = 1_700_000_000.0


@given(st.integers(1, 5))
def test_scheduled_delays_vary_by_a_fifth_and_end_with_the_schedule(attempt: int) -> None:
    schedule = (10.0, 100.0, 1000.0)
    wait = scheduled(schedule, attempt)
    if attempt > 3:
        assert wait is None
    else:
        assert wait is not None
        assert 0.8 <= wait / schedule[attempt - 1] <= 1.2


@given(st.integers(1, 1000))
def test_exponential_delays_double_up_to_the_maximum(attempt: int) -> None:
    whole = min(2.0 ** (attempt - 1), 60.0)
    assert whole / 2 <= exponential(attempt) <= whole


def test_exponential_delays_have_no_last_attempt() -> None:
    """A host that is probed every five minutes has failed more than 1,024 times after four days."""
    assert 30 <= exponential(100_000) <= 60


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0),
        (b"120", 120),
        (b" 7 ", 7),
        (b"999999999", 86400),
        (b"-5", 0),
        (b"soon", 0),
        (b"", 0),
        (b"1.5", 0),
        (b"9" * 5000, 0),
        (formatdate(NOW + 90, usegmt=True).encode(), 90),
        (formatdate(NOW - 90, usegmt=True).encode(), 0),
        (formatdate(NOW + 10**7, usegmt=True).encode(), 86400),
        (b"Tue, 14 Nov 2023 22:14:20 -0000", 60),
        (b"Tue, 99 Nov 2023 22:14:20 GMT", 0),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after(((b"retry-after", value),), NOW) == seconds
    assert retry_after((), NOW) == 0
