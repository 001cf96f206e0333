"""When a provider is asked again."""

import math

import pytest

from queue_middleware.cadence import first_question, next_question

NOW = 1_700_000_000.0


def after(value: bytes):
    return ((b"retry-after", value),)


@pytest.mark.parametrize(
    ("interval", "left", "failures", "headers", "wait"),
    [
        (5.0, 600.0, 0, (), 5.0),
        (5.0, 3.0, 0, (), 3.0),  # a last question, at the very end
        (5.0, 0.0, 0, (), None),
        (5.0, -1.0, 0, (), None),
        (300.0, 600.0, 0, (), 300.0),
        # after trouble: patiently, but not as patiently as the interval of a task that really waits for a callback
        (10.0, 600.0, 1, (), 5.0),
        (3.0, 600.0, 1, (), 3.0),
        (3.0, 600.0, 2, (), 6.0),
        (3.0, 600.0, 3, (), 12.0),
        (3.0, 600.0, 9, (), 60.0),
        (3.0, 600.0, 99_999, (), 60.0),
        (300.0, 600.0, 1, (), 5.0),
        (300.0, 2.0, 1, (), 2.0),
        # what the provider wishes
        (5.0, 600.0, 0, after(b"20"), 20.0),
        (5.0, 600.0, 0, after(b"2"), 2.0),
        (5.0, 600.0, 3, after(b"20"), 20.0),
        (5.0, 9_999.0, 0, after(b"86400"), 3600.0),
        (5.0, 10.0, 0, after(b"86400"), 10.0),
        (5.0, 600.0, 0, after(b"0"), 5.0),
        (5.0, 600.0, 0, after(b"soon"), 5.0),
        (5.0, 600.0, 0, after(b"Tue, 14 Nov 2023 22:13:50 GMT"), 30.0),
    ],
)
def test_waits(interval, left, failures, headers, wait):
    assert next_question(interval, left, failures, headers, NOW) == wait


def test_where_a_call_is_expected_it_is_asked_at_half_and_at_the_end():
    assert first_question(5.0, 600.0, after(b"20"), NOW, word_awaited=True) == 300.0
    assert next_question(math.inf, 300.0, 0, (), NOW) == 300.0
    assert next_question(math.inf, 0.0, 0, (), NOW) is None


def test_otherwise_after_its_interval_or_when_it_wishes():
    assert first_question(5.0, 600.0, (), NOW, word_awaited=False) == 5.0
    assert first_question(5.0, 600.0, after(b"20"), NOW, word_awaited=False) == 20.0
    assert first_question(5.0, 2.0, (), NOW, word_awaited=False) == 2.0
