"""`queue-middleware requests`: reading."""

from __future__ import annotations

import re

import pytest

from queue_middleware.cli import main
from queue_middleware.cli.requests.history import sentence
from queue_middleware.jobs.log_lines import LogLevel, LogLine
from queue_middleware.jobs.models import ErrorType, Failure, JobState
from queue_middleware.jobs.timeline import TimelineEntry, TimelineKind
from tests.support.factories import make_job, make_request, make_response

SECRET = "s3cr3t-c4n4ry"


async def fill(stores) -> dict[str, str]:
    """One request of each kind, by its name; `released` is queued again, as its process ends."""
    ids = {}
    for name in ("completed", "crashed", "failed", "cancelled", "released", "queued"):
        request = make_request(
            raw_path=b"/items/7",
            query=SECRET.encode(),
            headers=((b"authorization", SECRET.encode()), (b"content-type", b"text/plain")),
            body=SECRET.encode(),
        )
        job = make_job(
            client="id:alice" if name == "completed" else "192.0.2.7",
            webhook=f"https://hooks.example.com/{SECRET}",
            route="/items/{id}" if name != "queued" else "other",
            request=request,
        )
        ids[name] = (await stores.jobs.submit(job)).request_id
        if name == "cancelled":
            await stores.jobs.cancel(ids[name])
        if name in ("queued", "cancelled"):
            continue
        (claim,) = await stores.jobs.claim(1)
        line = LogLine(1_800_000_000_000_000, LogLevel.WARN, f"{name} is\nat work\x1b[2J", {"token": SECRET})
        await stores.jobs.log(claim, [line, line.replace(level=LogLevel.DEBUG)])
        if name in ("completed", "crashed"):
            await stores.jobs.complete(claim, make_response(status=200 if name == "completed" else 500))
        elif name == "failed":
            await stores.jobs.fail(claim, Failure(ErrorType.REQUEST_TIMEOUT, "it took longer than 60 s"))
    return ids


@pytest.fixture
def ids(terminal) -> dict[str, str]:
    return terminal.in_queue(fill)


def listed(terminal, *arguments: str) -> list[str]:
    return terminal.run_any("requests", "list", "--ids", *arguments)[1].split()


def test_the_list_has_a_row_for_each_request(terminal, ids):
    terminal.now += 90
    header, *rows = terminal.run("requests", "list").splitlines()
    assert header.split() == ["ID", "STATE", "ROUTE", "CLIENT", "SUBMITTED", "ENDED", "RAN", "ATTEMPTS", "RESULT"]
    assert [row.split()[0] for row in rows] == list(reversed(ids.values()))
    assert rows[-1].split("  ", 3)[1:3] == ["completed", "POST /items/{id}"]
    assert "alice" in rows[-1]
    assert "1 min 30 s ago" in rows[-1]
    assert rows[-3].split()[-1] == "request_timeout"
    assert "2027-01-15T08:00:00.000Z" in terminal.run("requests", "list", "--utc")


def test_filters_narrow_the_list(terminal, ids):
    assert listed(terminal, "--state", "queued") == [ids["queued"], ids["released"]]
    assert listed(terminal, "--client", "alice") == [ids["completed"]]
    assert listed(terminal, "--client", "192.0.2.7", "--state", "cancelled") == [ids["cancelled"]]
    assert listed(terminal, "--route", "other") == [ids["queued"]]
    assert listed(terminal, "--error", "request_timeout") == [ids["failed"]]
    assert len(listed(terminal, "--since", "1h")) == 6
    assert listed(terminal, "--until", "1h") == []
    assert listed(terminal, "--since", "2027-01-15T09:00:00") == []


def test_pages_continue_behind_a_request(terminal, ids):
    first = terminal.json("requests", "list", "--limit", "4")
    assert [row["id"] for row in first["requests"]] == list(reversed(ids.values()))[:4]
    second = terminal.json("requests", "list", "--limit", "4", "--after", first["next"])
    assert [row["id"] for row in second["requests"]] == list(reversed(ids.values()))[4:]
    assert second["next"] is None
    assert len(listed(terminal, "--limit", "4")) == 4
    assert f"--after {first['next']}" in terminal.error


def test_nothing_that_matches_is_an_exit_status_of_its_own(terminal, ids):
    assert terminal.run_any("requests", "list", "--state", "awaiting") == (3, "")
    assert terminal.error == "no request matches\n"
    assert terminal.run_any("requests", "show", "018f3b1e-0000-7000-8000-000000000001")[0] == 3
    assert terminal.run_any("requests", "show", "yesterday")[0] == 2


def test_one_request_is_shown(terminal, ids):
    printed = terminal.run("requests", "show", ids["failed"])
    fields = dict(line.split(None, 1) for line in printed.splitlines())
    assert fields["state"] == "failed"
    assert fields["result"] == "request_timeout: it took longer than 60 s"
    assert fields["route"] == "POST /items/{id}"
    assert fields["webhook"] == "to  hooks.example.com"
    hidden = terminal.json("requests", "show", ids["completed"], "--response")["stored_response"]
    assert (hidden["body"], hidden["body_base64"], hidden["size"]) == (None, None, len('{"ok": true}'))
    status, printed = terminal.run_any("requests", "show", ids["completed"], "--response")
    assert (status, '{"ok": true}' in printed) == (0, False)
    assert "the body, 12 B, and other secrets are printed with --reveal" in terminal.error
    document = terminal.json("requests", "show", ids["completed"], "--logs", "--response", "--reveal")
    assert document["request"]["state"] == JobState.COMPLETED
    assert document["stored_response"]["body"] == '{"ok": true}'
    assert [line["level"] for line in document["logs"]] == ["WARN", "DEBUG"]


def test_the_exit_status_can_be_that_of_the_request(terminal, ids):
    for name, status in (("completed", 0), ("crashed", 4), ("failed", 4), ("queued", 0)):
        assert terminal.run_any("requests", "show", ids[name], "--exit-status")[0] == status


def test_logs_are_printed(terminal, ids):
    lines = terminal.run("requests", "logs", ids["released"]).splitlines()
    assert lines[:2] == ["2027-01-15T08:00:00.000Z  WARN    released is", "    at work\\x1b[2J"]
    assert len(lines) == 5  # the last one reports the release
    assert len(terminal.run("requests", "logs", ids["released"], "--level", "warning").splitlines()) == 3
    terminal.now += 3600
    assert terminal.run("requests", "logs", ids["released"], "--since", "10m") == ""
    assert terminal.run("requests", "logs", ids["completed"], "--follow") != ""  # it has ended, so nothing follows


def test_secrets_are_printed_only_with_reveal(terminal, ids):
    queued = ids["queued"]
    reading = [
        ("list",),
        ("list", "--json"),
        ("show", queued, "--request", "--logs", "--response"),
        ("show", ids["released"], "--request", "--logs", "--json"),
        ("logs", ids["released"]),
        ("logs", ids["released"], "--json"),
    ]
    for arguments in reading:
        status, printed = terminal.run_any("requests", *arguments)
        assert status == 0
        assert SECRET not in printed + terminal.error
    stored = terminal.json("requests", "show", queued, "--request")["stored_request"]
    assert (stored["path"], stored["query"], stored["headers"][0]) == (None, None, ["authorization", "[redacted]"])
    shown = terminal.run("requests", "show", queued, "--request", "--reveal")
    assert f"/items/7?{SECRET}" in shown
    assert f"authorization: {SECRET}" in shown
    assert shown.endswith(f"{SECRET}\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("list", "--state", "sleeping"), "write one or more of queued"),
        (("list", "--limit", "0"), "not a positive number"),
        (("list", "--error", "bad"), "invalid choice"),
        (("list", "--since", "soon"), "not a duration"),
        (("logs", "x", "--level", "loud"), "must be one of"),
    ],
)
def test_invalid_arguments_are_reported(terminal, capsys, arguments, reason):
    with pytest.raises(SystemExit, match="2"):
        main(("requests", *arguments))
    assert reason in capsys.readouterr().err


def test_arguments_that_do_not_fit_together_are_reported(terminal, ids):
    assert "without a method" in terminal.run("requests", "list", "--route", "POST /items", fails=True, code=2)
    assert "one document" in terminal.run("requests", "logs", ids["queued"], "--follow", "--json", fails=True, code=2)


def test_a_queue_that_does_not_exist_is_reported(terminal, tmp_path):
    assert "there is no queue at" in terminal.run("requests", "list", fails=True, code=5)
    assert list(tmp_path.iterdir()) == []


def test_the_timeline_is_printed(terminal, ids):
    terminal.now += 60
    *_, first, second, third = terminal.run("requests", "show", ids["failed"], "--timeline").splitlines()
    assert first == "1 min ago       submitted by 192.0.2.7"
    assert re.fullmatch(r"1 min ago       attempt 1 started, after waiting 0\.0 s", second)
    assert third == "1 min ago       failed after 0.0 s: request_timeout: it took longer than 60 s"
    document = terminal.json("requests", "show", ids["completed"], "--timeline")
    assert [entry["kind"] for entry in document["timeline"]] == ["submitted", "attempt_started", "ended"]


def test_every_kind_of_a_timeline_has_a_sentence():
    texts = {
        TimelineKind.SUBMITTED: ({"client": "id:alice", "original": "x"}, "submitted by id:alice, as a copy of x"),
        TimelineKind.ATTEMPT_STARTED: (
            {"attempt": 2, "process": "p", "waited": 61.0},
            "attempt 2 started in process p, after waiting 1 min 1 s",
        ),
        TimelineKind.ATTEMPT_ENDED: (
            {"attempt": 1, "ending": "timed_out", "status": 503, "detail": "busy", "seconds": 2.0},
            "attempt 1 timed out after 2.0 s: 503, busy",
        ),
        TimelineKind.AWAITING: ({"status": 202}, "awaiting an external service; the call was answered with status 202"),
        TimelineKind.ENDED: (
            {"state": "completed", "status": 200, "error_type": None, "detail": None, "bytes": 2048, "seconds": 3.0},
            "completed after 3.0 s: 200, 2.0 KiB",
        ),
        TimelineKind.DELIVERY_ATTEMPT: (
            {"delivery": 7, "webhook": "completed", "host": "h", "attempt": 1, "status": 200, "error": None, "seconds": 0.1},
            "webhook 7 (completed) to h, attempt 1: status 200, 0.1 s",
        ),
        TimelineKind.COPIED: ({"copy": "y"}, "submitted again as y"),
        TimelineKind.OPERATED: ({"operator": "alice", "action": "cancel", "count": 1}, "cancel by alice"),
    }
    assert texts.keys() == set(TimelineKind)
    for kind, (data, text) in texts.items():
        assert sentence(TimelineEntry(0, kind, data)) == text
