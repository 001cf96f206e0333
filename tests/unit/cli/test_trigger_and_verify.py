import io
import json
from pathlib import Path

import httpx
import pytest

from queue_middleware.cli import main, trigger
from queue_middleware.cli.trigger_key import path_of_trigger_key, trigger_key
from queue_middleware.verify import WebhookVerifier
from tests.support.webhook_sender import NOW, SECRET, Sender

REQUEST = "019a3c77-0000-7000-8000-000000000001"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("QUEUE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


class Shell:
    """Runs commands one after the other; the output of one can be the input of the next."""

    def __init__(self, capfd, monkeypatch) -> None:
        self._capfd, self._monkeypatch = capfd, monkeypatch
        self.now: float = NOW
        self.err = ""

    def run(self, *arguments: str, code: int = 0, stdin: bytes = b"") -> str:
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        assert main(arguments, clock=lambda: self.now) == code
        out, self.err = self._capfd.readouterr()
        return out

    def sample(self, *arguments: str) -> bytes:
        return self.run("trigger", *arguments, "--print").encode()


@pytest.fixture
def shell(capfd, monkeypatch) -> Shell:
    return Shell(capfd, monkeypatch)


@pytest.fixture
def key_set(shell, tmp_path) -> str:
    path = tmp_path / "keys.json"
    path.write_text(shell.run("trigger", "completed", "--key-set"))
    return str(path)


@pytest.mark.parametrize("kind", ["completed", "failed", "started", "progress"])
def test_every_sample_is_valid_for_verify(shell, key_set, kind):
    sample = shell.sample(kind, "--request", REQUEST)
    printed = shell.run("verify", "-", "--keys", key_set, stdin=sample)
    assert printed.splitlines()[-1].startswith("valid: webhook ")
    assert printed.splitlines()[-1].endswith(f" of request {REQUEST}")
    assert " XX " not in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["completed", "--data", '{"a": 1}'], {"status": "OK", "payload": {"a": 1}, "error": None}),
        (["completed", "--data", '{"a": 1}', "--status", "422"], {"status": "ERROR", "error": "Invalid status code: 422"}),
        (["failed"], {"status": "ERROR", "error": "Invalid status code: 500"}),
        (["started"], {"status": "IN_PROGRESS", "type": "request.started", "webhook_id": f"{REQUEST}_1"}),
        (["progress"], {"type": "request.progress", "progress": {"fraction": 0.4, "stage": "sample"}}),
        (["progress", "--data", '{"fraction": 1}'], {"progress": {"fraction": 1.0, "stage": None}}),
    ],
)
def test_the_body_is_that_of_the_service(shell, arguments, expected):
    head, _, body = shell.sample(*arguments, "--request", REQUEST).partition(b"\r\n\r\n")
    sent = json.loads(body)
    assert {name: sent[name] for name in expected} == expected
    assert b"content-type: application/json" in head


def test_a_long_sample_is_signed_too(shell, key_set, tmp_path):
    (tmp_path / "body.json").write_text(json.dumps(["x" * 300_000]))
    sample = shell.sample("completed", "--data", "@body.json")
    assert "valid: " in shell.run("verify", "-", "--keys", key_set, stdin=sample)


def test_an_unsigned_sample_is_refused(shell, key_set):
    printed = shell.run("verify", "-", "--keys", key_set, stdin=shell.sample("completed", "--no-sign"), code=1)
    assert "none of its headers is present" in printed
    assert "not valid: " in printed


def test_a_shared_secret_signs_too(shell):
    sample = shell.sample("completed", "--secret", SECRET)
    printed = shell.run("verify", "-", "--secret", SECRET, stdin=sample)
    assert "signed by hmac-sha256, secret 1" in printed


def test_verify_prints_one_document(shell, key_set):
    sample = shell.sample("started", "--request", REQUEST)
    (row,) = json.loads(shell.run("verify", "-", "--keys", key_set, "--json", stdin=sample))
    assert (row["valid"], row["reason"], row["request_id"], row["webhook_id"]) == (True, None, REQUEST, f"{REQUEST}_1")
    assert row["signed_by"] == f"ed25519, key {trigger_key().kid}"
    assert {finding["mark"] for finding in row["findings"]} == {"ok", "--"}


def test_an_old_recording_needs_a_longer_tolerance(shell, key_set, tmp_path):
    (tmp_path / "recorded").write_bytes(shell.sample("completed"))
    shell.now += 86_400
    assert "more than 300 s" in shell.run("verify", "recorded", "--keys", key_set, code=1)
    assert "valid: " in shell.run("verify", "recorded", "--keys", key_set, "--tolerance", "2d")


def test_the_key_of_the_user_is_private_and_stays_the_same(shell):
    first = shell.run("trigger", "completed", "--key-set")
    assert shell.run("trigger", "completed", "--key-set") == first
    assert path_of_trigger_key().stat().st_mode & 0o777 == 0o600
    assert trigger_key().seed_hex() not in first


@pytest.mark.parametrize("goal", ["--print", "--key-set"])
def test_json_describes_only_a_response(shell, goal):
    assert shell.run("trigger", "completed", goal, "--json", code=2) == ""
    assert "pass it with --to" in shell.err


def test_a_user_without_a_home_folder_gets_a_sentence(shell, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    shell.run("trigger", "completed", "--print", code=1)
    assert "set XDG_CONFIG_HOME" in shell.err


def test_a_webhook_of_another_sender_is_checked_with_its_keys(shell, tmp_path):
    sender = Sender()
    body = b'{"status": "OK"}'
    head = "".join(f"{name}: {value}\n" for name, value in sender.webhook(body=body).items())
    (tmp_path / "dump").write_bytes(f"HTTP/1.1 200 OK\n{head}\n".encode() + body + b"\n")
    (tmp_path / "keys").write_text(json.dumps(sender.signer.jwks()))
    printed = shell.run("verify", "dump", "--keys", "keys", code=1)
    assert "valid without the last line break" in printed


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["verify", "missing"], 1, "cannot read missing"),
        (["verify", "-", "--keys", "missing"], 1, "cannot read the key set missing"),
        (["verify", "-", "--keys", "ftp://a"], 2, "--keys needs a URL"),
        (["trigger", "completed", "--to", "nowhere"], 2, "--to needs a URL"),
        (["trigger", "completed", "--print", "--request", "abc"], 2, "not a UUID"),
        (["trigger", "completed", "--print", "--status", "99"], 2, "--status"),
        (["trigger", "progress", "--print", "--data", "{}"], 2, "progress is written"),
        (["trigger", "completed", "--print", "--data", "@missing"], 1, "cannot read missing"),
        (["trigger", "completed", "--print", "--secret", "whsec_"], 1, "secret"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(shell, arguments, code, reason):
    shell.run(*arguments, code=code, stdin=b"webhook-id: a\n\n{}")
    assert reason in shell.err
    assert shell.err.count("\n") == 1


def test_a_sample_verifies_with_the_verifier_of_the_package(shell, key_set):
    head, _, body = shell.sample("completed").partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    content = Path(key_set).read_bytes()
    client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, content=content)))
    verifier = WebhookVerifier("http://keys.test/", sync_client=client, clock=lambda: NOW)
    assert verifier.verify_sync(headers, body).timestamp == NOW


def test_an_endless_response_of_a_receiver_is_read_in_part(shell, monkeypatch):
    class Endless(httpx.SyncByteStream):
        def __iter__(self):
            for _ in range(1000):
                yield b"\x1b[2J" + b"x" * 65_536
            pytest.fail("the response is read without end")

    def respond(self, request):
        return httpx.Response(500, stream=Endless())

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", respond)
    printed = shell.run("trigger", "completed", "--to", "http://receiver.test/", code=4)
    assert "500: not accepted" in printed
    assert "\x1b" not in printed
    assert len(printed.splitlines()[1]) < 1100
    document = json.loads(shell.run("trigger", "completed", "--to", "http://receiver.test/", "--json", code=4))
    assert len(document["body"]) == 1000


def test_a_receiver_that_sends_its_response_slowly_is_not_waited_for(shell, monkeypatch):
    now = [0.0]

    class Slow(httpx.SyncByteStream):
        def __iter__(self):
            for _ in range(1000):
                now[0] += 1
                yield b"x"

    monkeypatch.setattr(trigger, "monotonic", lambda: now[0])
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda self, request: httpx.Response(200, stream=Slow()))
    shell.run("trigger", "completed", "--to", "http://receiver.test/", "--timeout", "5s")
    assert now[0] <= 6
