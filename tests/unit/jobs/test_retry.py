import pytest

from queue_middleware.jobs.models import ErrorType, Failure, Headers, RetryCause, RetryPolicy, StoredResponse
from queue_middleware.jobs.retry import RETRY_CAUSE_BY_ERROR, RetryDecision, attempts_left, decide_retry

THREE = RetryPolicy(3)
SERVER_ERROR = RetryCause.SERVER_ERROR


def response(status: int, *headers: tuple[bytes, bytes]) -> StoredResponse:
    return StoredResponse(status, headers, b"")


@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 408, 422, 429, 500, 501, 502])
def test_responses_that_are_final(status: int) -> None:
    assert decide_retry(response(status), 1, THREE) is None


@pytest.mark.parametrize("status", [503, 504])
def test_responses_that_are_retried(status: int) -> None:
    assert decide_retry(response(status), 1, THREE) == RetryDecision(SERVER_ERROR)
    assert decide_retry(response(status, (b"retry-after", b"7")), 2, THREE) == RetryDecision(SERVER_ERROR, 7.0)
    assert decide_retry(response(status), 3, THREE) is None


@pytest.mark.parametrize(
    ("value", "after"), [(b"12", 12.0), (b"99999999", 3600.0), (b"Wed, 21 Oct 2026 07:28:00 GMT", None), (b"-1", None)]
)
def test_429_is_retried_if_it_has_retry_after(value: bytes, after: float | None) -> None:
    expected = None if after is None else RetryDecision(SERVER_ERROR, after)
    assert decide_retry(response(429, (b"retry-after", value)), 1, THREE) == expected


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_the_application_can_override_the_decision(status: int) -> None:
    assert decide_retry(response(status, (b"x-fal-needs-retry", b"1")), 1, THREE) == RetryDecision(SERVER_ERROR)
    assert decide_retry(response(status, (b"x-fal-needs-retry", b"0")), 1, THREE) is None
    assert decide_retry(response(status, (b"x-fal-needs-retry", b"1")), 3, THREE) is None


@pytest.mark.parametrize("error_type", ErrorType)
def test_failures_that_are_retried(error_type: ErrorType) -> None:
    cause = RETRY_CAUSE_BY_ERROR.get(error_type)
    assert decide_retry(Failure(error_type, ""), 1, THREE) == (RetryDecision(cause) if cause else None)


def test_the_submitter_sets_extra_attempts_for_each_cause() -> None:
    policy = RetryPolicy(3, {RetryCause.TIMEOUT: 1, RetryCause.SERVER_ERROR: 0})
    assert attempts_left(1, RetryCause.TIMEOUT, policy)
    assert not attempts_left(2, RetryCause.TIMEOUT, policy)
    assert not attempts_left(1, RetryCause.SERVER_ERROR, policy)
    assert attempts_left(2, RetryCause.CONNECTION_ERROR, policy)
    assert not attempts_left(3, RetryCause.CONNECTION_ERROR, policy)


def test_for_an_ordinary_response_retry_after_is_not_read() -> None:
    headers: Headers = ((b"retry-after", b"5"),)
    assert decide_retry(StoredResponse(200, headers, b""), 1, THREE) is None
