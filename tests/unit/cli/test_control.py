"""`queue-middleware pause`, `resume` and `processes`."""

from __future__ import annotations

import getpass

import pytest

from queue_middleware.jobs.models import JobState
from tests.support.factories import make_job


async def submit(stores) -> str:
    result = await stores.jobs.submit(make_job(route="/enlarge"), start=True)
    return "started" if result.claim else "waits"


@pytest.fixture(autouse=True)
def queue(terminal):
    assert terminal.in_queue(submit) == "started"


def test_a_route_is_paused_and_resumed(terminal):
    printed = terminal.run("pause", "--route", "/enlarge", "--reason", "the model is loaded", "--until", "30m")
    header, row = printed.splitlines()
    assert header.split("  ")[0] == "PAUSED ROUTE"
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == [
        "/enlarge", "0.0 s ago", "in 30 min", getpass.getuser(), "the model is loaded",
    ]  # fmt: skip
    assert terminal.in_queue(submit) == "waits"
    (pause,) = terminal.json("pause", "--list")["pauses"]
    assert (pause["route"], pause["paused_until"]) == ("/enlarge", "2027-01-15T08:30:00.000Z")
    assert terminal.json("resume", "--route", "/enlarge") == {"pauses": []}
    assert terminal.run_any("pause", "--list") == (0, "")
    assert terminal.error == "nothing is paused\n"


def test_all_routes_are_paused_until_they_are_resumed(terminal):
    assert "all routes" in terminal.run("pause", "--operator", "alice")
    terminal.now += 1e6
    assert terminal.in_queue(submit) == "waits"
    assert terminal.json("pause", "--list")["pauses"][0]["operator"] == "alice"
    assert terminal.run_any("resume") == (0, "")


def test_a_pause_that_does_not_hold_cannot_be_ended(terminal):
    assert "nothing is paused" in terminal.run("resume", fails=True, code=3)
    terminal.run("pause", "--route", "/enlarge")
    assert terminal.run("resume", fails=True, code=3).endswith("does not hold; paused: /enlarge\n")
    assert "/other is not paused" in terminal.run("resume", "--route", "/other", fails=True, code=3)


def test_a_route_without_requests_is_paused_with_a_remark(terminal):
    status, printed = terminal.run_any("pause", "--route", "/later")
    assert status == 0
    assert "/later" in printed
    assert "no stored request has the route /later" in terminal.error


def test_invalid_pauses_are_refused(terminal):
    assert "is over" in terminal.run("pause", "--until", "2020-01-01", fails=True, code=2)
    assert "no other arguments" in terminal.run("pause", "--list", "--reason", "x", fails=True, code=2)
    assert terminal.json("pause", "--list") == {"pauses": []}


def test_processes_are_listed(terminal):
    assert terminal.run_any("processes", "list") == (3, "")

    async def list_while_running(stores):
        await stores.operations.register(8)
        return await stores.operations.processes()

    (process,) = terminal.in_queue(list_while_running)
    assert process.concurrency == 8
    assert terminal.json("processes", "list") == []


def test_pausing_does_not_count_as_a_process(terminal):
    """The command opens the database as one more process, but it runs no requests."""
    terminal.run("pause")
    assert terminal.json("processes", "list") == []

    async def count(stores):
        return (await stores.jobs.counts()).jobs

    assert terminal.in_queue(count) == {JobState.QUEUED: 1}
