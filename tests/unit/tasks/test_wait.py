"""What a job waits for after the response to its call."""

from __future__ import annotations

import pytest

from queue_middleware.jobs.models import ErrorType, Failure, StoredResponse
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.tasks.models import Wait
from queue_middleware.tasks.polling.config import LOCATION_POLLING
from queue_middleware.tasks.wait import decide_wait
from tests.support.factories import make_request, make_task

NOW = 1_700_000_000.0
POLLS = PollConfig("/status/{startResult.body.id}", "status", ("done",), ("broken",))
KEY = (b"authorization", b"Key secret")
REQUEST = make_request(headers=((b"host", b"x"), KEY, (b"content-type", b"application/json"), (b"x-version", b"2")))
CREDENTIALS = (KEY, (b"x-version", b"2"))
LOCATION = ((b"location", b"/jobs/1"),)


def after(status: int = 200, headers: tuple = (), called_back: bool = False, **spec: object) -> Wait | None:
    given = {"callback": False, "is_external": True, "wait_timeout": 100.0, **spec}
    return decide_wait(
        StoredResponse(status, headers, b""), make_task(**given).spec, REQUEST, NOW, callback_requested=called_back
    )


def test_without_anything_to_wait_for_the_response_is_final():
    assert after() is None
    assert after(202) is None
    assert after(201, LOCATION) is None


@pytest.mark.parametrize("status", [302, 400, 404, 500])
def test_a_target_that_refuses_leaves_nothing_to_wait_for(status):
    assert after(status, LOCATION, callback=True, poll=POLLS) is None


def test_a_failure_is_final():
    failure = Failure(ErrorType.RUNNER_CONNECTION_ERROR, "no connection")
    assert decide_wait(failure, make_task(poll=POLLS).spec, REQUEST, NOW) is None


def test_wait_for_a_callback_or_a_signal():
    assert after(callback=True) == Wait(100.0)
    assert after(signal=True) == Wait(100.0)
    assert after(called_back=True) == Wait(100.0)


def test_wait_for_polls():
    assert after(poll=POLLS) == Wait(100.0, 5.0, None, CREDENTIALS)
    assert after(poll=POLLS.replace(forward_auth=False)) == Wait(100.0, 5.0)
    assert after(headers=((b"retry-after", b"30"),), poll=POLLS) == Wait(100.0, 30.0, None, CREDENTIALS)
    assert after(headers=((b"retry-after", b"3000"),), poll=POLLS) == Wait(100.0, 100.0, None, CREDENTIALS)


def test_with_a_callback_the_first_poll_is_at_half_of_the_time():
    assert after(poll=POLLS, callback=True) == Wait(100.0, 50.0, None, CREDENTIALS)
    assert after(poll=POLLS, called_back=True) == Wait(100.0, 50.0, None, CREDENTIALS)


def test_the_location_of_a_202_is_polled():
    assert after(202, LOCATION) == Wait(600.0, 5.0, LOCATION_POLLING, CREDENTIALS)
    assert after(202, LOCATION, wait_timeout=3600.0) == Wait(3600.0, 5.0, LOCATION_POLLING, CREDENTIALS)
    assert after(202, (*LOCATION, (b"retry-after", b"7"))) == Wait(600.0, 7.0, LOCATION_POLLING, CREDENTIALS)
    assert after(202, LOCATION, callback=True) == Wait(100.0, 50.0, LOCATION_POLLING, CREDENTIALS)
    assert after(202, LOCATION, poll=POLLS) == Wait(100.0, 5.0, None, CREDENTIALS)  # the task's own polling
    assert after(202, LOCATION, is_external=False) is None  # from the wrapped application it is an ordinary response
