"""`queue-middleware webhooks` and `queue-middleware receivers`."""

from __future__ import annotations

import getpass

import pytest

from queue_middleware.jobs.audit import Action
from queue_middleware.webhooks.circuit import FAILURE_THRESHOLD, AttemptOutcome
from queue_middleware.webhooks.models import Capacity
from tests.support.factories import make_delivery_attempt, make_job, make_response

SECRET = "s3cr3t-c4n4ry"
FAILED = make_delivery_attempt(500, "answered 500").replace(response_body=SECRET.encode())


async def end(stores, host: str) -> str:
    """Submit and complete one request with a webhook to this host."""
    result = await stores.jobs.submit(make_job(webhook=f"https://{host}/{SECRET}", client="id:alice"), start=True)
    await stores.jobs.complete(result.claim, make_response())
    return result.request_id


async def fill(stores) -> dict[str, str]:
    """A webhook that was delivered, one that was given up, and one that an open circuit delays: the request of each."""
    ids = {"delivered": await end(stores, "good.example")}
    (claim,) = (await stores.webhooks.claim(Capacity(1, 1))).deliveries
    await stores.webhooks.settle(claim, make_delivery_attempt(), delivered=True, retry_in=None, outcome=AttemptOutcome.PROMPT)
    ids["dead"] = await end(stores, "bad.example")
    (claim,) = (await stores.webhooks.claim(Capacity(1, 1))).deliveries
    await stores.webhooks.settle(claim, FAILED, delivered=False, retry_in=None)
    ids["delayed"] = await end(stores, "down.example:8443")
    for _ in range(FAILURE_THRESHOLD):
        (claim,) = (await stores.webhooks.claim(Capacity(1, 1))).deliveries
        await stores.webhooks.settle(claim, FAILED, delivered=False, retry_in=0.0, outcome=AttemptOutcome.UNREACHED)
    return ids


@pytest.fixture
def ids(terminal) -> dict[str, str]:
    return terminal.in_queue(fill)


def states(terminal) -> list[str]:
    return [row["state"] for row in terminal.json("webhooks", "list")["webhooks"]]


def acts(terminal) -> list[tuple[str, Action, str, int]]:
    async def read(stores):
        return [(one.operator, one.action, one.target, one.count) for one in await stores.operations.audit()]

    return terminal.in_queue(read)


def test_webhooks_are_listed(terminal, ids):
    terminal.now += 5
    header, *rows = terminal.run("webhooks", "list").splitlines()
    assert header.split() == ["ID", "REQUEST", "KIND", "HOST", "STATE", "ATTEMPTS", "SINCE", "DUE"]
    assert [row.split()[:6] for row in rows] == [
        ["1", ids["delivered"], "completed", "good.example", "delivered", "1"],
        ["2", ids["dead"], "completed", "bad.example", "dead", "1"],
        ["3", ids["delayed"], "completed", "down.example:8443", "pending", "5"],
    ]
    assert terminal.run("webhooks", "list", "--dead", "--ids") == "2\n"
    assert terminal.run("webhooks", "list", "--request", ids["delayed"], "--ids") == "3\n"
    first = terminal.json("webhooks", "list", "--limit", "2")
    assert (len(first["webhooks"]), first["next"]) == (2, 2)
    assert terminal.run("webhooks", "list", "--after", "2", "--ids") == "3\n"
    assert terminal.run_any("webhooks", "list", "--host", "nowhere.example") == (3, "")


def test_one_webhook_is_shown_with_its_attempts(terminal, ids):
    printed = terminal.run("webhooks", "show", "3")
    assert printed.count("answered 500") == FAILURE_THRESHOLD
    assert SECRET not in printed + terminal.run("webhooks", "list") + terminal.run("webhooks", "list", "--json")
    assert SECRET in terminal.run("webhooks", "show", "3", "--reveal")
    document = terminal.json("webhooks", "show", "2", "--reveal")
    assert [(one["status"], one["response"]) for one in document["attempts"]] == [(500, SECRET)]
    assert terminal.run_any("webhooks", "show", "99")[0] == 3


def test_named_webhooks_are_delivered_again(terminal, ids):
    assert terminal.run("webhooks", "redeliver", "1", "2", "--operator", "alice") == "2 webhooks will be delivered again\n"
    assert states(terminal) == ["pending", "pending", "pending"]
    assert acts(terminal) == [("alice", Action.REDELIVER, "2", 1), ("alice", Action.REDELIVER, "1", 1)]


def test_a_selection_is_delivered_again_after_approval(terminal, ids):
    selection = ("webhooks", "redeliver", "--since", "1h")
    assert "1 webhook would be delivered again" in terminal.run(*selection, fails=True)
    assert "1 webhook matches, not 2; nothing was done" in terminal.run(*selection, "--expect", "2", fails=True)
    assert terminal.run(*selection, "--dry-run") == "1 webhook would be delivered again\n"
    assert states(terminal) == ["delivered", "dead", "pending"]
    assert terminal.json(*selection, "--yes") == {"selected": 1, "redelivered": 1}
    assert states(terminal) == ["delivered", "pending", "pending"]
    ((operator, action, target, count),) = acts(terminal)
    assert (operator, action, count) == (getpass.getuser(), Action.REDELIVER, 1)
    assert target == '{"since":1799996400000}'
    assert "no webhook matches" in terminal.run(*selection, "--yes", fails=True, code=3)


def test_a_selection_is_required(terminal, ids):
    assert "no webhooks are selected" in terminal.run("webhooks", "redeliver", "--yes", fails=True, code=2)
    assert "not both" in terminal.run("webhooks", "redeliver", "1", "--dead", fails=True, code=2)


def test_receivers_are_listed(terminal, ids):
    header, row = terminal.run("receivers", "list").splitlines()
    assert header.split("  ")[0] == "HOST"
    assert row.split()[:4] == ["down.example:8443", "alice", "open", str(FAILURE_THRESHOLD)]
    everyone = terminal.json("receivers", "list", "--all")
    assert {one["host"]: one["health"] for one in everyone}["good.example"] == "healthy"


def test_no_failing_receiver_is_no_failure(terminal):
    terminal.in_queue(lambda stores: end(stores, "good.example"))
    assert terminal.run_any("receivers", "list") == (0, "")
    assert terminal.json("receivers", "list") == []


def test_a_receiver_is_probed(terminal, ids):
    assert terminal.run("receivers", "probe", "down.example:8443", "--operator", "alice") == "1 webhook will be sent now\n"
    assert acts(terminal) == [("alice", Action.PROBE, "down.example:8443", 1)]

    async def claim(stores):
        return [one.host for one in (await stores.webhooks.claim(Capacity(9, 9))).deliveries]

    assert terminal.in_queue(claim) == ["down.example:8443"]
    assert "no circuit of good.example is open" in terminal.run("receivers", "probe", "good.example", fails=True, code=3)
