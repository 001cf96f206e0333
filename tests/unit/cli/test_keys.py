import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from queue_middleware.cli import main
from queue_middleware.webhooks.signing.keyfile import KeyFile
from queue_middleware.webhooks.signing.keyring import LEAD_TIME
from queue_middleware.webhooks.signing.keys import KeyPair

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
FIRST, SECOND = KeyPair(bytes(32)), KeyPair(b"2" * 32)


class Terminal:
    """An operator's terminal: environment, clock and output."""

    def __init__(self, folder, monkeypatch, capsys) -> None:
        self.now = NOW
        self.database = folder / "queue.sqlite3"
        self.file = KeyFile(folder / "queue.sqlite3.key", clock=lambda: self.now)
        self._environment, self._capsys = monkeypatch, capsys
        for name in ("QUEUE_DATABASE", "QUEUE_SIGNING_KEY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(folder)

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._environment.setenv(name, value)

    def run(self, *arguments: str, fails: bool = False, code: int = 1) -> str:
        """Run a command and return its output, or its error output if it is expected to fail."""
        assert main(arguments, clock=lambda: self.now) == (code if fails else 0)
        out, err = self._capsys.readouterr()
        assert (err if not fails else out) == ""
        return err if fails else out

    def listed(self) -> list[dict[str, object]]:
        return json.loads(self.run("keys", "list", "--json"))


@pytest.fixture
def terminal(tmp_path, monkeypatch, capsys) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


def write_key_file(terminal: Terminal, text: str) -> None:
    terminal.file.path.write_text(text)
    terminal.file.path.chmod(0o600)


def test_rotate_prints_what_happens_when(terminal):
    write_key_file(terminal, FIRST.seed_hex())
    printed = terminal.run("keys", "rotate")
    new = terminal.file.read().keys[1].pair
    assert printed.splitlines() == [
        f"{FIRST.kid} signs; published until 2027-01-18T09:00:00Z",
        f"{new.kid} is published now and signs from 2027-01-16T09:00:00Z",
        "Running services read the change within seconds.",
    ]
    assert new.seed_hex() not in printed


def test_list_prints_all_keys(terminal):
    write_key_file(terminal, FIRST.seed_hex())
    terminal.run("keys", "rotate")
    new = terminal.file.read().keys[1].pair
    table = [line.split("  ") for line in terminal.run("keys", "list").splitlines()]
    assert [[word.strip() for word in line if word.strip()] for line in table] == [
        ["KID", "STATUS", "SIGNS FROM", "PUBLISHED UNTIL"],
        [FIRST.kid, "active", "-", "2027-01-18T09:00:00Z"],
        [new.kid, "next", "2027-01-16T09:00:00Z", "-"],
    ]
    terminal.now += LEAD_TIME
    assert [row["status"] for row in terminal.listed()] == ["old", "active"]
    terminal.now += 48 * 3600
    assert [row["status"] for row in terminal.listed()] == ["retired", "active"]


def test_list_prints_json(terminal):
    write_key_file(terminal, FIRST.seed_hex())
    assert terminal.listed() == [
        {
            "kid": FIRST.kid,
            "status": "active",
            "signs_from": None,
            "published_until": None,
            "x": FIRST.jwk(padded=False)["x"],
        }
    ]


def test_the_command_reads_the_options_of_the_service(terminal, tmp_path):
    write_key_file(terminal, FIRST.seed_hex())
    other = tmp_path / "other"
    other.mkdir()
    (other / "jobs.db").touch()
    terminal.set(QUEUE_DATABASE=f"sqlite:///{other}/jobs.db")
    terminal.run("keys", "rotate")
    assert (other / "jobs.db.key").exists()
    assert len(json.loads(terminal.run("keys", "list", "--json", "--database", str(terminal.database)))) == 1
    terminal.set(QUEUE_SIGNING_KEY=str(tmp_path / "mounted"))
    terminal.run("keys", "rotate")
    assert (tmp_path / "mounted").exists()
    assert sorted(path.name for path in other.iterdir()) == ["jobs.db", "jobs.db.key"]
    assert (other / "jobs.db").read_bytes() == b""  # no queue has opened it yet


def test_rotate_with_a_longer_lead_time(terminal):
    write_key_file(terminal, FIRST.seed_hex())
    assert "signs from 2027-01-22T08:00:00Z" in terminal.run("keys", "rotate", "--notice", "7d")


def test_rotate_after_a_leak(terminal):
    write_key_file(terminal, FIRST.seed_hex())
    printed = terminal.run("keys", "rotate", "--compromised").splitlines()
    (key,) = terminal.file.read().keys
    assert printed == [f"{key.pair.kid} signs", "Running services read the change within seconds."]
    assert key.pair.kid != FIRST.kid


def test_keys_in_the_environment_can_be_listed_but_not_rotated(terminal):
    terminal.set(QUEUE_SIGNING_KEY=f"{FIRST.seed_hex()},{SECOND.seed_hex()}")
    assert [row["status"] for row in terminal.listed()] == ["active", "spare"]
    for arguments in (["keys", "rotate"], ["keys", "rotate", "--compromised"]):
        error = terminal.run(*arguments, fails=True)
        assert "append ',<new seed>@<time>'" in error
        assert "@2027-01-16T09:00:00Z" in error
    assert not terminal.file.path.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["keys", "list"], "there is no signing key"),
        (["keys", "rotate", "--notice", "1h"], "for 24 h before it signs"),
        (["keys", "list", "--database", "mysql://there"], "mysql://… is not supported"),
    ],
)
def test_impossible_commands_print_one_clear_message(terminal, arguments, reason):
    if "rotate" in arguments:
        write_key_file(terminal, FIRST.seed_hex())
    error = terminal.run(*arguments, fails=True)
    assert error.startswith("queue-middleware: ")
    assert reason in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments",
    [[], ["keys"], ["jobs"], ["keys", "rotate", "--notice", "soon"], ["keys", "rotate", "--notice", "30h", "--compromised"]],
)
def test_unknown_arguments_print_the_usage(terminal, arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: queue-middleware" in capsys.readouterr().err


def test_an_invalid_option_in_the_environment_is_reported(terminal):
    terminal.set(QUEUE_CONCURRENCY="many")
    assert "QUEUE_CONCURRENCY: 'many'" in terminal.run("keys", "list", fails=True)


def test_no_key_is_created_without_a_queue(terminal, tmp_path):
    for arguments in (["keys", "rotate"], ["keys", "rotate", "--compromised"]):
        assert f"there is no queue at {terminal.database}; name its database with" in terminal.run(
            *arguments, fails=True, code=5
        )
    assert list(tmp_path.iterdir()) == []


def test_the_module_can_be_run(terminal):
    write_key_file(terminal, FIRST.seed_hex())
    done = subprocess.run(
        [sys.executable, "-m", "queue_middleware", "keys", "rotate"], capture_output=True, text=True, check=True, timeout=60
    )
    assert terminal.file.read().keys[0].pair.kid in done.stdout
    assert done.stderr == ""


def test_the_package_installs_the_command():
    scripts = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == dict.fromkeys(("queue-middleware", "qm"), f"{main.__module__}:{main.__name__}")
