import pytest

from queue_middleware.errors import OutboundError, OutboundRefused, OutboundUnreached
from queue_middleware.webhooks.circuit import AttemptOutcome
from queue_middleware.webhooks.retry import (
    MAX_REFUSALS,
    AttemptDecision,
    decide_error,
    decide_response,
    error_for_status,
    retry_delay,
)

NOW = 1_700_000_000.0
NOT_FOLLOWED = "response status 301; redirects are not followed"


@pytest.mark.parametrize(
    ("error", "tries", "is_last", "outcome"),
    [
        (OutboundRefused("private address"), 1, False, None),
        (OutboundRefused("private address"), MAX_REFUSALS, True, None),
        (OutboundRefused("private address", is_final=True), 1, True, None),
        (OutboundUnreached("connection refused"), 1, False, AttemptOutcome.UNREACHED),
        (OutboundError("no response"), 1, False, AttemptOutcome.FAILED),
        (OutboundError("no response"), 8, True, AttemptOutcome.FAILED),
    ],
)
def test_the_decision_after_an_outbound_error(error, tries, is_last, outcome):
    decision = decide_error(error, tries, (5.0,) * 7)
    assert (decision.error, decision.retry_in is None, decision.outcome) == (error.detail, is_last, outcome)


def test_an_unexpected_error_is_recorded_by_its_class_and_shows_nothing_about_the_receiver():
    decision = decide_error(ZeroDivisionError("secret"), 1, (5.0,))
    assert (decision.error, decision.outcome) == ("not sent: ZeroDivisionError", None)
    assert decision.retry_in is not None


def test_the_decision_after_a_response():
    arguments = {"url": "https://a.example/", "tries": 1, "schedule": (5.0,), "now": NOW}
    assert decide_response(200, (), 0.1, **arguments) == AttemptDecision(outcome=AttemptOutcome.PROMPT)
    decision = decide_response(500, (), 0.1, **arguments)
    assert (decision.error, decision.outcome) == ("response status 500", AttemptOutcome.FAILED)
    assert 4 <= decision.retry_in <= 6


@pytest.mark.parametrize(
    ("status", "headers", "least", "most"),
    [
        (500, (), 4, 6),
        (500, ((b"retry-after", b"60"),), 4, 6),
        (404, (), 4, 6),
        (429, (), 4, 6),
        (429, ((b"retry-after", b"60"),), 60, 60),
        (503, ((b"retry-after", b"60"),), 60, 60),
        (503, ((b"retry-after", b"1"),), 4, 6),
    ],
)
def test_the_delay_after_a_response(status, headers, least, most):
    for _ in range(50):
        assert least <= retry_delay(status, headers, 1, (5.0,), NOW) <= most


@pytest.mark.parametrize(("status", "attempt"), [(200, 1), (204, 1), (302, 1), (410, 1), (500, 2), (503, 2)])
def test_there_is_no_further_attempt(status, attempt):
    assert retry_delay(status, ((b"retry-after", b"60"),), attempt, (5.0,), NOW) is None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None),
        (299, None),
        (302, "response status 302; redirects are not followed"),
        (404, "response status 404"),
        (500, "response status 500"),
    ],
)
def test_the_error_for_a_status(status, error):
    assert error_for_status(status) == error


def test_the_error_for_a_redirect_has_its_target_without_secrets():
    for location, shown in (
        (b"https://new.example/hook?token=secret#x", "https://new.example/hook"),
        (b"https://user:secret@new.example:8443/", "https://new.example:8443/"),
        (b"/login?next=secret", "https://a.example/login"),
        (b"//other.example/x", "https://other.example/x"),
        (b"https://a.example/\x1b[31m", "https://a.example/?[31m"),
    ):
        error = error_for_status(302, ((b"location", location),), "https://a.example/hook?key=secret")
        assert error == f"response status 302; redirects are not followed (this one is to {shown})"
    for nothing in (b"", b"https://[", b"mailto:a@b.example"):
        assert error_for_status(301, ((b"location", nothing),), "https://a.example/") == NOT_FOLLOWED
    assert len(error_for_status(302, ((b"location", b"/" + b"x" * 9000),), "https://a.example/")) < 400
