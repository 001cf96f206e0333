import json

import pytest

from queue_middleware import errors
from queue_middleware.jobs.failures import STATUS, failure_body, failure_headers
from queue_middleware.jobs.models import ErrorType, Failure
from queue_middleware.web.fal.responses import error_response


@pytest.mark.parametrize(
    ("error_type", "status", "error_type_text"),
    [
        (ErrorType.REQUEST_TIMEOUT, 504, "request_timeout"),
        (ErrorType.START_TIMEOUT, 504, "request_timeout"),
        (ErrorType.RUNNER_DISCONNECTED, 503, "runner_disconnected"),
        (ErrorType.RUNNER_INCOMPLETE_RESPONSE, 502, "runner_incomplete_response"),
        (ErrorType.RUNNER_SERVER_ERROR, 500, "runner_server_error"),
        (ErrorType.CLIENT_CANCELLED, 499, "client_cancelled"),
    ],
)
def test_every_failure_has_its_error_type_and_message(error_type, status, error_type_text):
    failure = Failure(error_type, 'a "quote" and ü')
    assert STATUS[error_type] == status
    assert failure_body(failure) == b'{"detail": "a \\"quote\\" and \\u00fc", "error_type": "%s"}' % error_type_text.encode()
    assert (b"x-fal-error-type", error_type_text.encode()) in failure_headers(failure)


def test_the_table_has_every_failure():
    assert set(STATUS) == set(ErrorType)


def test_only_a_passed_start_deadline_is_the_users_timeout():
    marked = {kind for kind in ErrorType if (b"x-fal-request-timeout-type", b"user") in failure_headers(Failure(kind, ""))}
    assert marked == {ErrorType.START_TIMEOUT}


@pytest.mark.parametrize(
    ("error", "error_type_text"),
    [
        (errors.BadRequest("x"), "bad_request"),
        (errors.StoreError("x"), "internal_error"),
        (errors.StillInProgress("x"), None),
        (errors.UnknownRoute("x"), None),
        (errors.InvalidWebhook("x"), None),
        (errors.QueueFull("x", 5), None),
    ],
)
def test_refusals(error, error_type_text):
    body, headers = error_response(error)
    assert json.loads(body) == {"detail": "x"} | ({"error_type": error_type_text} if error_type_text else {})
    varying = ((b"vary", b"prefer"),) if isinstance(error, errors.StillInProgress) else ()
    typed = ((b"x-fal-error-type", error_type_text.encode()),) if error_type_text else ()
    assert headers == error.headers + varying + typed


@pytest.mark.parametrize("refused", [errors.QueueFull, errors.TooManyQueued, errors.StoreBusy])
def test_retry_after_of_concurrent_refusals_varies(refused):
    delays = {int(dict(error_response(refused("later", 10))[1])[b"retry-after"]) for _ in range(500)}
    assert delays == {10, 11, 12, 13, 14, 15}
