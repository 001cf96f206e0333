"""`queue-middleware status`."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from queue_middleware.jobs.models import ErrorType, Failure, JobState
from queue_middleware.webhooks.circuit import FAILURE_THRESHOLD, AttemptOutcome
from queue_middleware.webhooks.models import Capacity
from tests.support.factories import make_delivery_attempt, make_job, make_response


async def fill(stores) -> None:
    for outcome in (make_response(), make_response(status=503), Failure(ErrorType.REQUEST_TIMEOUT, "too slow")):
        claim = (await stores.jobs.submit(make_job(webhook="https://hooks.example.com/x"), start=True)).claim
        if isinstance(outcome, Failure):
            await stores.jobs.fail(claim, outcome)
        else:
            await stores.jobs.complete(claim, outcome)
    await stores.jobs.submit(make_job())
    for _ in range(FAILURE_THRESHOLD):
        (claim, *_) = (await stores.webhooks.claim(Capacity(1, 1))).deliveries
        failed = make_delivery_attempt(None, "refused")
        await stores.webhooks.settle(claim, failed, delivered=False, retry_in=0.0, outcome=AttemptOutcome.UNREACHED)


@pytest.fixture(autouse=True)
def queue(terminal) -> None:
    terminal.in_queue(fill)


def test_the_state_is_printed(terminal):
    terminal.run_any(
        *["pause", "--route", "/enlarge", "--until", "30m", "--operator", "alice", "--reason"], "the model is loaded"
    )
    terminal.now += 3
    assert terminal.run("status").splitlines() == [
        "queue.sqlite3, no process runs it",
        "queued 1   running 0   delayed 0   awaiting 0",
        "ended: 2xx 1, 5xx 1, failed 1",
        "webhooks: 3 pending, 0 given up",
        "paused: /enlarge, 3.0 s ago by alice, ends in 29 min: the model is loaded",
        f"receiver: hooks.example.com is open, next probe {next_probe(terminal)}, 3 webhooks pending",
        "          (queue-middleware receivers list)",
    ]


def next_probe(terminal) -> str:
    row = terminal.run("receivers", "list").splitlines()[1]
    return re.search(r"in [\d.]+ s", row)[0]


def test_the_state_as_json(terminal):
    document = terminal.json("status")
    assert document["requests"][JobState.QUEUED] == 1
    assert document["outcomes"] == {"2xx": 1, "5xx": 1, "failed": 1}
    assert document["at"] == "2027-01-15T08:00:00.000Z"
    assert document["receivers"][0]["health"] == "open"
    assert document["processes"] == []
    assert "--watch prints several" in terminal.run("status", "--watch", "--json", fails=True, code=2)


def test_processes_are_counted_while_the_service_runs(terminal):
    async def look(stores):
        await stores.operations.register(8)
        command = [sys.executable, "-m", "queue_middleware", "status"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    first, second, *_ = terminal.in_queue(look).splitlines()
    assert re.fullmatch(rf"queue\.sqlite3, 1 process \(\S+ {os.getpid()}\), version \S+", first)
    assert second.startswith("queued 1   running 0 of 8   ")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_it_is_printed_again_until_it_is_interrupted(terminal, is_terminal):
    reading, writing = pty.openpty() if is_terminal else os.pipe()
    command = [sys.executable, "-m", "queue_middleware", "status", "--watch", "10ms"]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(writing)
        printed = b""
        while printed.count(b"queued 1") < 3:
            printed += os.read(reading, 65536)
        process.send_signal(signal.SIGINT)
        while _read_rest(reading):
            pass
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == b""
    os.close(reading)
    assert (b"\x1b[" in printed) is is_terminal


def _read_rest(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end of a terminal is closed
        return b""
