"""The demos as a user runs them: one command, in a separate process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from nacl.signing import SigningKey

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FASTAPI = "examples.fastapi_app.demo"
FLASK = "examples.flask_via_a2wsgi.demo"


def command(module: str, *options: str) -> list[str]:
    return [sys.executable, "-m", module, *options]


def environment() -> dict[str, str]:
    # As in a CI log: no colours and no terminal, whatever the environment of the tests requests.
    return {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS")}


def run(module: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(module, *options),
        cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip


def webhooks(output: str, label: str) -> list[str]:
    """The lines of the display about the webhook of one request."""
    return re.findall(rf"^ +[\d.]+ s  {re.escape(label)} +webhook (.*)$", output, re.MULTILINE)


@contextmanager
def unrelated_keys() -> Iterator[str]:
    """Serve a valid key set that does not belong to the service."""
    x = urlsafe_b64encode(bytes(SigningKey.generate().verify_key)).decode().rstrip("=")
    body = json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]}).encode()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is inherited
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/jwks.json"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_fastapi_demo_shows_results_a_422_and_a_cancellation(tmp_path: Path) -> None:
    database = tmp_path / "kept.sqlite3"
    done = run(FASTAPI, "--once", "--database", str(database))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for label in ("enlarge x2", "enlarge x3", "enlarge x4", "contact sheet, 6"):
        assert webhooks(done.stdout, label) == ["verified: OK"], done.stdout
    assert webhooks(done.stdout, "enlarge x40 (mistake)") == ["verified: ERROR, Invalid status code: 422"]
    assert webhooks(done.stdout, "contact sheet, 200") == ["verified: ERROR, Request was cancelled"]
    assert re.search(r"retouch +IN_PROGRESS +50% waiting for the retoucher", done.stdout), done.stdout
    assert webhooks(done.stdout, "retouch") == ["verified: OK"]
    assert "OK: 7 requests, every webhook was received and verified" in done.stdout
    assert str(database) in done.stdout
    assert database.exists()


def test_the_demo_is_readable_where_there_is_no_terminal() -> None:
    output = run(FASTAPI, "--once").stdout
    assert "\x1b" not in output
    assert "\r" not in output
    assert re.search(r"enlarge x\d +IN_QUEUE, \d in front", output)
    assert re.search(r"IN_PROGRESS +\d+% refine", output)
    assert len(re.findall(r"enlarge x3 +\| 960 x 960 pixels: error [\d.]+, after 30 rounds [\d.]+$", output, re.MULTILINE)) == 1
    assert re.search(r"contact sheet, 200 +\| sheet stopped after \d+ frames$", output, re.MULTILINE)


def test_the_flask_demo_states_its_limit() -> None:
    done = run(FLASK, "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert webhooks(done.stdout, "enlarge x3") == webhooks(done.stdout, "enlarge x2") == ["verified: OK"]
    assert webhooks(done.stdout, "enlarge x40 (mistake)") == ["verified: ERROR, Invalid status code: 422"]
    assert webhooks(done.stdout, "enlarge x4, 60 rounds") == ["verified: ERROR, Request was cancelled"]
    assert "A thread finished the cancelled enlargement anyway" in done.stdout


@pytest.mark.parametrize("module", [FASTAPI, FLASK])
def test_once_fails_with_a_reason_when_the_webhooks_cannot_be_verified(module: str) -> None:
    with unrelated_keys() as url:
        done = run(module, "--once", "--jwks-url", url)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED: the receiver refused a webhook: the signature is by none of the keys" in done.stdout
    assert "OK:" not in done.stdout


def test_once_fails_with_a_reason_when_the_time_is_up() -> None:
    done = run(FASTAPI, "--once", "--timeout", "0.5")
    assert done.returncode == 1
    assert "FAILED: not done after 0.5 s; no verified webhook for: " in done.stdout


EXPECTED = (
    '"request_id"', '"COMPLETED"', '"picture"', "ALREADY_COMPLETED", "", '"width":640', '"request_id"',
    "Invalid status code: 422", '"keys"',
)  # fmt: skip
"""A part of the response to each command, in their order."""


def paste(line: str, folder: Path) -> str:
    quiet = line.replace("curl ", "curl -sS --max-time 30 ", 1)
    return subprocess.run(["bash", "-c", quiet], cwd=folder, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_user_can_paste_the_commands_and_stop_the_demo(tmp_path: Path) -> None:
    log = tmp_path / "output"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            command(FASTAPI),
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=accept_ctrl_c,
        )
    try:
        text = wait_for(log, "jwks.json'", demo)
        pasted = [line.strip() for line in text.splitlines() if line.strip().startswith("curl")]
        assert len(pasted) == len(EXPECTED)
        if shutil.which("curl"):
            responses = [paste(line, tmp_path) for line in pasted]
            for response, expected in zip(responses, EXPECTED, strict=True):
                assert expected in response
            assert (tmp_path / "enlarged.jpg").read_bytes().startswith(b"\xff\xd8")
            wait_for(log, "verified webhook: ", demo)
        (service,) = re.findall(r"service +(http://\S+)", text)
        assert httpx.get(f"{service}/sheets", trust_env=False).status_code == 200
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
    finally:
        demo.terminate()  # SIGKILL would leave its servers running
        demo.wait(60)
    assert "Traceback" not in log.read_text()
    with pytest.raises(httpx.ConnectError):  # its servers ended with it
        httpx.get(f"{service}/sheets", trust_env=False)


def accept_ctrl_c() -> None:
    """React to Ctrl-C as in a terminal: background jobs of a shell ignore SIGINT, and their child processes inherit this."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(log: Path, text: str, process: subprocess.Popen[bytes], seconds: float = 90) -> str:
    deadline = time.monotonic() + seconds
    while text not in (content := log.read_text()):
        assert process.poll() is None, content
        assert time.monotonic() < deadline, content
        time.sleep(0.1)
    return content
