"""`queue-middleware requests cancel`, `replay` and `run-now`."""

from __future__ import annotations

import getpass
import io
import sys

import pytest

from queue_middleware.errors import StoreBusy
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import ErrorType, Failure, JobState
from queue_middleware.observability.metrics import catalog
from queue_middleware.runtime import request_admin
from queue_middleware.stores.common.operator_store import CommonOperatorStore
from queue_middleware.tasks.secret_ids import SecretIds
from tests.support.factories import make_job, make_request, make_response, make_task

UNKNOWN = "018f3b1e-0000-7000-8000-000000000001"


async def fill(stores) -> dict[str, str]:
    """A request of each kind, by its name. `failed` and `crashed` are kept."""
    ids = {}
    for name in ("completed", "crashed", "failed"):
        claim = (await stores.jobs.submit(make_job(name.encode(), route="/work"), start=True)).claim
        ids[name] = claim.request_id
        if name == "failed":
            await stores.jobs.fail(claim, Failure(ErrorType.REQUEST_TIMEOUT, "too slow"))
        else:
            await stores.jobs.complete(claim, make_response(status=200 if name == "completed" else 500))
    for name in ("queued", "other"):
        ids[name] = (await stores.jobs.submit(make_job(route="/work" if name == "queued" else "/other"))).request_id
    later = make_job(route="/work", task=make_task(), due_at=1_800_003_600_000)
    ids["delayed"] = (await stores.jobs.submit(later)).request_id
    return ids


@pytest.fixture
def ids(terminal, monkeypatch) -> dict[str, str]:
    monkeypatch.setenv("QUEUE_KEEP_REQUESTS", "failed")
    return terminal.in_queue(fill, keep_requests="failed")


def states(terminal, ids) -> dict[str, str]:
    found = {row["id"]: row["state"] for row in terminal.json("requests", "list")["requests"]}
    return {name: found[request_id] for name, request_id in ids.items()}


def acts(terminal) -> list[tuple[str, Action, str, int]]:
    async def read(stores):
        return [(one.operator, one.action, one.target, one.count) for one in await stores.operations.audit()]

    return terminal.in_queue(read)


# --- cancel


def test_named_requests_are_cancelled(terminal, ids):
    printed = terminal.run("requests", "cancel", ids["queued"], ids["delayed"], "--operator", "alice")
    assert printed == "2 requests were cancelled\n"
    assert not terminal.database.with_name("queue.sqlite3.secret").exists()  # only copies of tasks need it
    assert states(terminal, ids) == {
        "completed": "completed", "crashed": "completed", "failed": "failed",
        "queued": "cancelled", "other": "queued", "delayed": "cancelled",
    }  # fmt: skip
    assert acts(terminal) == [
        ("alice", Action.CANCEL, ids["delayed"], 1),
        ("alice", Action.CANCEL, ids["queued"], 1),
    ]


def test_what_cannot_be_cancelled_is_reported(terminal, ids):
    status, printed = terminal.run_any("requests", "cancel", ids["completed"], UNKNOWN, ids["queued"])
    assert (status, printed) == (1, "1 request was cancelled\n")
    assert f"the request {ids['completed']} has already ended\n" in terminal.error
    assert f"there is no request {UNKNOWN}\n" in terminal.error
    assert "left out: 1 ended, 1 UnknownRequest" in terminal.error
    assert terminal.run_any("requests", "cancel", UNKNOWN)[0] == 3
    assert terminal.run_any("requests", "cancel", "yesterday")[0] == 2


def test_a_selection_is_cancelled_after_approval(terminal, ids):
    selection = ("requests", "cancel", "--route", "/work")
    assert "2 requests would be cancelled; nothing was done" in terminal.run(*selection, fails=True)
    assert "2 requests match, not 3" in terminal.run(*selection, "--expect", "3", fails=True)
    assert terminal.run(*selection, "--dry-run") == "2 requests would be cancelled\n"
    assert states(terminal, ids)["queued"] == "queued"
    assert terminal.json(*selection, "--expect", "2") == {"selected": 2, "done": 2, "left_out": {}, "copies": {}}
    assert states(terminal, ids)["other"] == "queued"
    assert "no request matches" in terminal.run(*selection, "--yes", fails=True, code=3)
    assert acts(terminal) == [(getpass.getuser(), Action.CANCEL, '{"route":"/work"}', 2)]


def test_an_act_that_the_database_interrupts_prints_what_was_done_and_fails(terminal, ids, monkeypatch):
    async def cancel_many(store, keys, operator, target):
        if targets:
            raise StoreBusy("the queue's database does not respond", 5)
        targets.append(target)
        return dict.fromkeys(keys, JobState.CANCELLED)

    targets = []
    monkeypatch.setattr(request_admin, "_BATCH", 2)
    monkeypatch.setattr(CommonOperatorStore, "cancel_many", cancel_many)
    status, printed = terminal.run_any("requests", "cancel", "--all", "--yes")
    assert (status, printed) == (5, "2 requests were cancelled\n")
    assert "left out: 1 StoreBusy" in terminal.error
    assert "does not respond" in terminal.error


def test_everything_is_cancelled_only_with_all(terminal, ids):
    assert "or add --all" in terminal.run("requests", "cancel", "--yes", fails=True, code=2)
    assert "not both" in terminal.run("requests", "cancel", ids["queued"], "--all", fails=True, code=2)
    assert terminal.run("requests", "cancel", "--all", "--yes") == "3 requests were cancelled\n"
    assert "no request matches" in terminal.run("requests", "cancel", "--state", "completed", "--yes", fails=True, code=3)


def test_acts_are_counted_in_the_metrics(terminal, ids):
    terminal.run("requests", "cancel", "--all", "--yes")
    terminal.run("requests", "replay", ids["failed"])
    terminal.run("pause")

    async def read(stores):
        return {(name, labels): value for name, labels, bucket, value in (await stores.metrics.read()).rows if not bucket}

    numbers = terminal.in_queue(read)
    assert numbers[catalog.ACTIONS.name, "cancel"] == 1
    assert numbers[catalog.ACTIONS.name, "pause"] == 1
    assert numbers[catalog.SUBMITTED.name, "/work"] == 1  # the copy; nothing has counted the others
    assert numbers[catalog.FINISHED.name, "/work\ncancelled"] == 2
    assert numbers[catalog.FINISHED.name, "/other\ncancelled"] == 1


# --- replay


def test_a_kept_request_is_submitted_again(terminal, ids):
    sentence, copy = terminal.run("requests", "replay", ids["failed"]).splitlines()
    assert sentence == "1 request was submitted again"
    detail = terminal.json("requests", "show", copy)
    assert (detail["original"], detail["request"]["state"]) == (ids["failed"], "queued")
    assert terminal.json("requests", "show", ids["failed"])["copies"] == [copy]
    assert acts(terminal) == [(getpass.getuser(), Action.REPLAY, ids["failed"], 1)]


def test_the_body_of_a_copy_can_be_another_one(terminal, ids, tmp_path, monkeypatch):
    (tmp_path / "body.json").write_bytes(b'{"seed": 7}')
    copy = terminal.run("requests", "replay", ids["failed"], "--body", "body.json").splitlines()[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"seed": 8}')))
    other = terminal.run("requests", "replay", ids["failed"], "--body", "-").splitlines()[1]
    for request_id, body in ((copy, '{"seed": 7}'), (other, '{"seed": 8}')):
        assert terminal.json("requests", "show", request_id, "--request", "--reveal")["stored_request"]["body"] == body
    assert "exactly one ID" in terminal.run("requests", "replay", "--all", "--body", "-", fails=True, code=2)
    assert "No such file" in terminal.run("requests", "replay", ids["failed"], "--body", "missing", fails=True)


def test_what_is_not_kept_is_reported(terminal, ids):
    assert "keep_requests" in terminal.run_any("requests", "replay", ids["completed"])[1] + terminal.error
    assert terminal.run_any("requests", "replay", ids["completed"])[0] == 1
    assert terminal.run_any("requests", "replay", ids["queued"])[0] == 1
    assert "NotEnded" in terminal.error


def test_failed_requests_are_submitted_again(terminal, ids):
    """Those without a response, and those with a status from 500."""
    document = terminal.json("requests", "replay", "--state", "failed", "--since", "1h", "--yes")
    assert (document["selected"], document["done"], document["left_out"]) == (2, 2, {})
    assert set(document["copies"]) == {ids["failed"], ids["crashed"]}


def test_a_preview_counts_what_is_not_kept(terminal, ids):
    status, printed = terminal.run_any("requests", "replay", "--route", "/work", "--dry-run")
    assert (status, printed) == (0, "2 requests would be submitted again\n")
    assert terminal.error == "left out: 1 NotKept\n"
    document = terminal.json("requests", "replay", "--route", "/work", "--yes")
    assert (document["selected"], document["done"], document["left_out"]) == (3, 2, {"NotKept": 1})


def test_the_copy_of_a_task_has_secret_ids_of_its_own(terminal, monkeypatch):
    monkeypatch.setenv("QUEUE_CALLBACK_SECRET", "c" * 64)

    async def fail(stores):
        claim = (await stores.jobs.submit(make_job(task=make_task()), start=True)).claim
        await stores.jobs.fail(claim, Failure(ErrorType.REQUEST_TIMEOUT, "too slow"))
        return claim

    original = terminal.in_queue(fail, keep_requests="failed")
    copy = terminal.run("requests", "replay", original.request_id).splitlines()[1]

    async def claim_copy(stores):
        (claim,) = await stores.jobs.claim(1)
        return claim

    claim = terminal.in_queue(claim_copy)
    assert claim.request_id == copy
    assert claim.task.callback_hash != original.task.callback_hash
    assert SecretIds((bytes.fromhex("c" * 64),)).of_task(claim.task) is not None


# --- run-now


def test_delayed_requests_are_started_early(terminal, ids):
    assert terminal.run("requests", "run-now", ids["delayed"]) == "1 request was made due\n"
    assert terminal.json("requests", "show", ids["delayed"])["due_at"] == "2027-01-15T08:00:00.000Z"
    assert "is not delayed" in terminal.run_any("requests", "run-now", ids["queued"])[1] + terminal.error
    assert acts(terminal) == [(getpass.getuser(), Action.RUN_NOW, ids["delayed"], 1)]


def test_a_selection_of_delayed_requests_is_started_early(terminal, ids):
    assert terminal.run("requests", "run-now", "--all", "--dry-run") == "1 request would be made due\n"
    assert terminal.json("requests", "run-now", "--all", "--yes")["done"] == 1


# --- approval


def test_the_operator_is_asked_on_a_terminal(terminal, ids, monkeypatch):
    answers = iter(["n\n", "yes\n"])

    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, *_):
            return next(answers)

    monkeypatch.setattr(sys, "stdin", Keyboard())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    selection = ("requests", "cancel", "--route", "/other")
    assert "1 request will be cancelled. Continue? [y/N]" in terminal.run(*selection, fails=True)
    assert "nothing was done" in terminal.run(*selection, "--no-input", fails=True)
    assert terminal.run_any(*selection)[1] == "1 request was cancelled\n"


def test_a_request_with_a_secret_is_copied_without_showing_it(terminal):
    secret = "s3cr3t-c4n4ry"

    async def fail(stores):
        request = make_request(secret.encode(), query=secret.encode(), headers=((b"authorization", secret.encode()),))
        claim = (await stores.jobs.submit(make_job().replace(request=request), start=True)).claim
        await stores.jobs.fail(claim, Failure(ErrorType.REQUEST_TIMEOUT, "too slow"))

    terminal.in_queue(fail, keep_requests="failed")
    for arguments in (["--dry-run"], ["--dry-run", "--json"], ["--yes"], ["--yes", "--json"]):
        status, printed = terminal.run_any("requests", "replay", "--all", *arguments)
        assert status == 0
        assert secret not in printed + terminal.error
    assert secret not in str(acts(terminal))


# --- dry runs of named requests


@pytest.mark.parametrize(
    ("verb", "name", "code", "reason"),
    [
        ("cancel", "queued", 0, None),
        ("cancel", "completed", 1, "ended"),
        ("run-now", "delayed", 0, None),
        ("run-now", "queued", 1, "not_delayed"),
        ("replay", "failed", 0, None),
        ("replay", "completed", 1, "NotKept"),
        ("replay", "queued", 1, "NotEnded"),
    ],
)
def test_a_dry_run_finds_what_the_act_would_refuse(terminal, ids, verb, name, code, reason):
    before = states(terminal, ids)
    done = terminal.json("requests", verb, ids[name], "--dry-run")
    assert done == {"selected": 1, "done": 0, "left_out": {reason: 1} if reason else {}, "copies": {}}
    status, printed = terminal.run_any("requests", verb, ids[name], "--dry-run")
    assert (status, printed.split()[0]) == (code, "0" if reason else "1")
    assert states(terminal, ids) == before
    assert acts(terminal) == []
    real, _ = terminal.run_any("requests", verb, ids[name])
    assert real == code


def test_a_dry_run_of_an_unknown_request_matches_nothing(terminal, ids):
    assert terminal.run_any("requests", "cancel", UNKNOWN, "--dry-run")[0] == 3
    assert f"there is no request {UNKNOWN}" in terminal.error
