"""`queue-middleware requests export` and `import`."""

from __future__ import annotations

import io
import json
import stat
import sys
from typing import Any

import pytest

from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import IDENTITY_PREFIX, JobState, Mount, RetryCause, RetryPolicy, WebhookKind
from queue_middleware.jobs.task_spec import PollConfig, TaskSpec
from queue_middleware.tasks.secret_ids import SecretIds, callback_secrets
from tests.support.factories import make_job, make_request, make_task

SECRET = "s3cr3t-c4n4ry"


def submit(terminal, *jobs: Any, **options: Any) -> list[str]:
    async def work(stores) -> list[str]:
        return [(await stores.jobs.submit(job)).request_id for job in jobs]

    return terminal.in_queue(work, **options)


def kept(terminal, *ids: str) -> list[Any]:
    async def work(stores) -> list[Any]:
        return [(await stores.operations.kept_request(one)).job for one in ids]

    return terminal.in_queue(work)


def secret_job() -> Any:
    request = make_request(
        root_path=f"/tenants/{SECRET}",
        raw_path=f"/tenants/{SECRET}/items/{SECRET}".encode(),
        mount=Mount(f"/tenants/{SECRET}", {"tenant": SECRET}),
        query=f"{SECRET}&token={SECRET}".encode(),
        headers=(
            (b"authorization", SECRET.encode()),
            (b"x-api-key", SECRET.encode()),
            (b"referer", f"https://example.com/?q={SECRET}".encode()),
            (b"x-upstream", f"https://user:{SECRET}@example.com/".encode()),
            (b"x-forwarded-access", f"Bearer {SECRET}".encode()),
            (b"accept", b"*/*"),
            (b"sec-fetch-user", b"?1"),
        ),
        body=f'{{"prompt": "{SECRET}"}}'.encode(),
    )
    return make_job(request=request, webhook=f"https://hooks.example.com/{SECRET}", route="/items/{id}")


def full_job() -> Any:
    request = make_request(
        method="PUT",
        root_path="/v1",
        raw_path=b"/v1/items/a%20b",
        query=b"a=1&b",
        headers=((b"content-type", b"image/png"), (b"x-twice", b"1"), (b"x-twice", "é".encode("latin-1"))),
        scheme="https",
        http_version="2",
        server=("api.example.com", None),
        body=b"\x89PNG\xff",
        mount=Mount("/v1", {"tenant": "a", "n": 2}, ("tenant",)),
    )
    return make_job(
        request=request,
        client=f"{IDENTITY_PREFIX}alice",
        priority=9,
        retry=RetryPolicy(7, {RetryCause.TIMEOUT: 2}),
        webhook="https://hooks.example.com/a?b=c",
        webhook_kinds=(WebhookKind.STARTED,),
        unstored_response=True,
        route="/items/{id}",
    )


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_request_is_the_same_after_export_and_import(terminal, tmp_path):
    (original,) = submit(terminal, full_job())
    path = tmp_path / "requests.jsonl"
    assert terminal.run("requests", "export", "--reveal", "--output", str(path)) == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    terminal.run_any("requests", "import", str(path), "--operator", "alice")
    assert terminal.error == "1 request was submitted\n"
    new, old = terminal.run("requests", "list", "--ids").split()
    assert old == original
    (copy,) = kept(terminal, new)
    assert copy == full_job().replace(start_timeout=None)


def test_an_import_is_recorded(terminal, tmp_path):
    submit(terminal, make_job(), make_job())
    path = tmp_path / "requests.jsonl"
    path.write_text(terminal.run("requests", "export", "--reveal"))
    terminal.run_any("requests", "import", str(path), "--operator", "alice")

    async def work(stores) -> list[Any]:
        return await stores.operations.audit()

    (record,) = terminal.in_queue(work)
    assert (record.operator, record.action, record.target, record.count) == ("alice", Action.IMPORT, "2 lines", 2)


def test_requests_keep_their_order(terminal, tmp_path):
    bodies = [b"%d" % number for number in range(120)]
    submit(terminal, *[make_job(body) for body in bodies])
    path = tmp_path / "requests.jsonl"
    path.write_text(terminal.run("requests", "export", "--reveal"))
    copies = terminal.run_any("requests", "import", str(path))[1].split()
    assert [job.request.body for job in kept(terminal, *copies)] == bodies
    listed = terminal.run_any("requests", "list", "--ids", "--limit", "120")[1].split()
    assert copies == listed[::-1]


def test_a_task_gets_a_callback_of_its_own(terminal, tmp_path):
    secret_ids = SecretIds(callback_secrets((), terminal.database))
    poll = PollConfig("https://p.example/{startResult.body.id}", "status", ("done", 1, True), (), headers={"x": SECRET})
    spec = TaskSpec("https://s.example", 30.0, callback=True, signal=True, target="/work", poll=poll)
    task = secret_ids.new_task(spec, listed=True)
    (original,) = submit(terminal, make_job(task=task))
    assert SECRET not in terminal.run("requests", "export")
    path = tmp_path / "requests.jsonl"
    path.write_text(terminal.run("requests", "export", original, "--reveal"))
    status, out = terminal.run_any("requests", "import", str(path))
    assert status == 0
    (copy,) = kept(terminal, out.strip())
    assert copy.task.spec == task.spec
    assert copy.task.is_listed
    assert copy.task.callback_hash != task.callback_hash
    assert secret_ids.of_task(copy.task)


def test_without_reveal_an_export_has_no_secret_and_cannot_be_imported(terminal, tmp_path):
    submit(terminal, secret_job())
    for flags in ([], ["--json"]):
        assert SECRET not in terminal.run("requests", "export", *flags)
    (line,) = lines_of(terminal.run("requests", "export"))
    secret = ["authorization", "x-api-key", "referer", "x-upstream", "x-forwarded-access"]
    others = ["query", "webhook", "body", "connection", "path"]
    assert line["redacted"] == [*(f"header {name}" for name in secret), *others]
    assert line["headers"] == [*([name, "[redacted]"] for name in secret), ["accept", "*/*"], ["sec-fetch-user", "?1"]]
    assert (line["query"], line["body"], line["webhook"]) == ("", None, None)
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(line) + "\n")
    message = terminal.run("requests", "import", str(path), fails=True, code=2)
    assert "line 1: secrets were left out of this line (header authorization, header x-api-key, header referer, " in message
    path.write_text(json.dumps({**line, "redacted": []}) + "\n")
    assert "export it with --reveal" in terminal.run("requests", "import", str(path), fails=True, code=2)
    assert len(terminal.run("requests", "list", "--ids").split()) == 1


def test_a_request_without_secrets_is_importable_without_reveal(terminal, tmp_path):
    submit(terminal, make_job(request=make_request(body=b""), route="/work"))
    (line,) = lines_of(terminal.run("requests", "export"))
    assert line["redacted"] == []
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(line))
    assert terminal.run_any("requests", "import", str(path), "--dry-run") == (0, "")
    assert terminal.error == "1 request would be submitted\n"
    assert len(terminal.run("requests", "list", "--ids").split()) == 1


def test_requests_that_are_not_kept_are_counted(terminal):
    (waiting, cancelled) = submit(terminal, make_job(route="/a"), make_job(route="/b"))

    async def cancel(stores) -> None:
        await stores.jobs.cancel(cancelled)

    terminal.in_queue(cancel)
    status, out = terminal.run_any("requests", "export")
    assert (status, [line["id"] for line in lines_of(out)]) == (0, [waiting])
    assert terminal.error == "left out, because not kept: 1 of 2 requests\n"
    status, out = terminal.run_any("requests", "export", "--route", "/b")
    assert (status, out) == (3, "")
    assert "option keep_requests" in terminal.run("requests", "export", cancelled, fails=True)
    assert "not both" in terminal.run("requests", "export", cancelled, "--route", "/b", fails=True, code=2)
    assert json.loads(terminal.run("requests", "export", waiting, "--json"))[0]["state"] == "queued"


def test_an_export_replaces_no_file(terminal, tmp_path):
    submit(terminal, make_job())
    path = tmp_path / "requests.jsonl"
    path.write_text("x")
    assert f"cannot create {path}: File exists" in terminal.run("requests", "export", "--output", str(path), fails=True)
    assert path.read_text() == "x"


def test_a_line_needs_only_a_path(terminal, monkeypatch):
    submit(terminal)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'\n{"path": "/work", "body": "{}"}\n')))
    done = terminal.json("requests", "import", "-")
    assert [(one["line"], one["original"]) for one in done["imported"]] == [(2, None)]
    (job,) = kept(terminal, done["imported"][0]["id"])
    assert (job.request.method, job.request.raw_path, job.request.body, job.client) == ("POST", b"/work", b"{}", "127.0.0.1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("{}", "missing required field `path`"),
        ('{"path": "/a", "verb": "GET"}', "unknown field `verb`"),
        ('{"path": "/a", "max_attempts": 0}', "must be 1 at least"),
        ('{"path": "a"}', "does not begin with /"),
        ('{"path": "/fal/queue/x"}', "a queue route cannot be queued"),
        ('{"path": "/€"}', "path: contains a character that must be percent-encoded"),
        ('{"path": "/a", "query": "a b"}', "query: a character is not allowed"),
        ('{"path": "/a", "method": "A B"}', "method: a character is not allowed"),
        ('{"path": "/a", "headers": [["a\\nb", "x"]]}', "header name: a character is not allowed"),
        ('{"path": "/a", "headers": [["a", "x\\r\\ny: z"]]}', "header a: a character is not allowed"),
        ('{"path": "/a", "body": "x", "body_base64": "eA=="}', "both body and body_base64"),
        ('{"path": "/a", "body_base64": "x"}', "body_base64"),
        ('{"path": "/a", "webhook": "http://127.0.0.1/hook"}', "webhook"),
        ('{"path": "/other"}', "may not be queued"),
        (json.dumps({"path": "/a", "body": "x" * 2000}), "the maximum is 1000"),
    ],
)
def test_nothing_is_imported_if_a_line_is_wrong(terminal, tmp_path, line, message):
    submit(terminal)
    terminal.set(QUEUE_PATHS="/a", QUEUE_MAX_REQUEST_BODY="1000")
    path = tmp_path / "requests.jsonl"
    path.write_text('{"path": "/a"}\n' + line + "\n")
    error = terminal.run("requests", "import", str(path), fails=True, code=2)
    assert message in error
    assert f"{path}, line 2: " in error
    assert "nothing was submitted" in error
    assert terminal.run_any("requests", "list", "--ids") == (3, "")


def test_what_is_refused_in_the_middle_is_named(terminal, tmp_path):
    terminal.set(QUEUE_MAX_QUEUED_PER_CLIENT="2")
    submit(terminal)
    path = tmp_path / "requests.jsonl"
    lines = [{"path": "/a", "client": "id:a" if number != 3 else "id:b"} for number in range(205)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, out = terminal.run_any("requests", "import", str(path))
    assert (status, len(out.split())) == (1, 3)
    assert "3 of 205 requests were submitted; line 3: " in terminal.error
    assert terminal.error.endswith("not submitted: lines 3, 5-205\n")
    done = terminal.json("requests", "import", str(path))
    assert done["imported"][0]["line"] == 4
    assert done["not_imported"] == [1, 2, 3, *range(5, 206)]


def test_files_that_are_not_there(terminal, tmp_path):
    submit(terminal)
    missing = tmp_path / "missing"
    assert f"cannot read {missing}: No such file" in terminal.run("requests", "import", str(missing), fails=True)
    (tmp_path / "empty").touch()
    assert "contains no request" in terminal.run("requests", "import", str(tmp_path / "empty"), fails=True, code=2)


def test_an_imported_request_waits_for_a_service(terminal, tmp_path):
    (original,) = submit(terminal, make_job())
    path = tmp_path / "requests.jsonl"
    path.write_text(terminal.run("requests", "export", "--reveal"))
    new = terminal.run_any("requests", "import", str(path))[1].strip()

    async def state(stores) -> Any:
        return (await stores.jobs.job(new)).state

    assert terminal.in_queue(state) is JobState.QUEUED
    assert new != original


def test_a_dry_run_of_an_import_is_one_document_and_creates_no_secret(terminal):
    submit(terminal, make_job(task=make_task()))
    terminal.run("requests", "export", "--reveal", "--output", "lines.jsonl")
    assert terminal.json("requests", "import", "lines.jsonl", "--dry-run") == {
        "imported": [], "not_imported": [1], "refusal": None,
    }  # fmt: skip
    assert not terminal.database.with_name("queue.sqlite3.secret").exists()


def test_an_import_needs_a_database(terminal):
    terminal.database.with_name("lines.jsonl").write_text('{"path": "/a"}')
    assert "there is no queue" in terminal.run("requests", "import", "lines.jsonl", "--dry-run", fails=True, code=5)


@pytest.mark.parametrize(("arguments", "code"), [((), 5), (("018f3b1e-0000-7000-8000-000000000001",), 3)])
def test_an_export_that_fails_leaves_no_file(terminal, arguments, code):
    if arguments:
        submit(terminal)
    terminal.run("requests", "export", *arguments, "--output", "out.jsonl", fails=True, code=code)
    assert not terminal.database.with_name("out.jsonl").exists()


def test_exported_lines_contain_no_characters_that_control_a_terminal(terminal):
    submit(terminal, make_job(request=make_request(body="\x7f\x9b31m\u202e ä".encode())))
    printed = terminal.run("requests", "export", "--reveal")
    assert printed.rstrip("\n").isprintable()
    assert json.loads(printed)["body"] == "\x7f\x9b31m\u202e ä"
