"""`queue-middleware status`."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from queue_middleware.cli.throughput import cells, quantile, read_throughput, recent_line
from queue_middleware.jobs.models import ErrorType, Failure, JobState
from queue_middleware.observability.metrics import catalog
from queue_middleware.observability.metrics.numbers import gauge, observed
from queue_middleware.observability.metrics.store import StoredNumbers
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
        f"receiver: hooks.example.com: circuit open, next probe {next_probe(terminal)}, 3 webhooks pending",
        "          (queue-middleware receivers list)",
        "",
        "ROUTE  QUEUED  RUNNING  DELAYED  AWAITING  OLDEST  FAILED 24H  WAIT P95  RUN P95",
        "other       1        0        0         0   3.0 s           0         -        -",
    ]
    assert "ROUTE" not in terminal.run("status", "--route", "/enlarge")


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
    terminal.run("pause", "--reason", "\x1b]0;title\x07")
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
    assert rb"\x1b]0;title\x07" in printed  # escaped: a reason must not control the terminals of other operators
    assert b"\x1b]0;" not in printed


def _read_rest(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end of a terminal is closed
        return b""


class Numbers:
    """The numbers of two routes; `/fast` has done nothing in the last minutes."""

    async def read(self):
        rows = [
            gauge(catalog.REQUESTS, 1204, "queued", "/slow"),
            gauge(catalog.REQUESTS, 2, "running", "/fast"),
            gauge(catalog.OLDEST, 252.0, "/slow"),
            gauge(catalog.OLDEST, 0.0, "/fast"),
        ]
        return StoredNumbers(rows, 0)

    async def tallies(self, names, since):
        slow = [
            (catalog.SUBMITTED.name, "/slow", 0, 191.0),
            (catalog.FINISHED.name, "/slow", 0, 188.0),
            (catalog.REQUESTS_FAILED, "/slow", 0, 2.0),
            *((name, "/slow", bucket, value) for name, _, bucket, value in observed(catalog.WAIT, [40.0] * 100)),
        ]
        fast = [
            (catalog.SUBMITTED.name, "/fast", 0, 9.0),
            *((name, "/fast", bucket, value) for name, _, bucket, value in observed(catalog.ATTEMPT_TIME, [0.2] * 10)),
        ]
        assert {row[0] for row in slow + fast} <= set(names)
        return slow if since == 1_799_999_700_000 else slow + fast


async def test_throughput_is_read_from_the_metrics():
    found = await read_throughput(Numbers(), 1_800_000_000.0)
    assert recent_line(found.recent) == "last 5 minutes: 191 submitted, 188 ended, 2 failed, 0 cancelled; wait p95 58 s"
    assert [cells(one) for one in found.routes] == [
        ("/slow", "1,204", "0", "0", "0", "4 min 12 s", "2", "58 s", "-"),
        ("/fast", "0", "2", "0", "0", "-", "0", "-", "0.2 s"),
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([0.75], 0.975), ([0.0], 0.00475), ([10_000.0], 3600.0), ([0.004] * 95 + [20.0] * 5, 0.005)],
)
def test_quantiles_are_those_of_prometheus(values, expected):
    assert quantile(catalog.WAIT, list(observed(catalog.WAIT, values))) == (expected and pytest.approx(expected))
