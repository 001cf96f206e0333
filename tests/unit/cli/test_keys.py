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


class Desk:
    """An operator's terminal: an environment, a clock, and what was printed."""

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

    def run(self, *arguments: str, fails: bool = False) -> str:
        """What it prints; the error output where it is to fail."""
        assert main(arguments, clock=lambda: self.now) == int(fails)
        out, err = self._capsys.readouterr()
        assert (err if not fails else out) == ""
        return err if fails else out

    def listed(self) -> list[dict[str, object]]:
        return json.loads(self.run("keys", "list", "--json"))


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def kept(desk: Desk, text: str) -> None:
    desk.file.path.write_text(text)
    desk.file.path.chmod(0o600)


def test_a_rotation_in_words(desk):
    kept(desk, FIRST.seed_hex())
    printed = desk.run("keys", "rotate")
    new = desk.file.read().keys[1].pair
    assert printed.splitlines() == [
        f"{FIRST.kid} signs; published until 2027-01-18T09:00:00Z",
        f"{new.kid} is published now and signs from 2027-01-16T09:00:00Z",
        "Running services read the change within seconds.",
    ]
    assert new.seed_hex() not in printed


def test_the_list(desk):
    kept(desk, FIRST.seed_hex())
    desk.run("keys", "rotate")
    new = desk.file.read().keys[1].pair
    table = [line.split("  ") for line in desk.run("keys", "list").splitlines()]
    assert [[word.strip() for word in line if word.strip()] for line in table] == [
        ["kid", "status", "signs from", "published until"],
        [FIRST.kid, "active", "-", "2027-01-18T09:00:00Z"],
        [new.kid, "next", "2027-01-16T09:00:00Z", "-"],
    ]
    desk.now += LEAD_TIME
    assert [row["status"] for row in desk.listed()] == ["old", "active"]
    desk.now += 48 * 3600
    assert [row["status"] for row in desk.listed()] == ["retired", "active"]


def test_the_list_for_programs(desk):
    kept(desk, FIRST.seed_hex())
    assert desk.listed() == [
        {
            "kid": FIRST.kid,
            "status": "active",
            "signs_from": None,
            "published_until": None,
            "x": FIRST.jwk(padded=False)["x"],
        }
    ]


def test_the_options_are_those_of_the_service(desk, tmp_path):
    kept(desk, FIRST.seed_hex())
    other = tmp_path / "other"
    other.mkdir()
    (other / "jobs.db").touch()
    desk.set(QUEUE_DATABASE=f"sqlite:///{other}/jobs.db")
    desk.run("keys", "rotate")
    assert (other / "jobs.db.key").exists()
    assert len(json.loads(desk.run("keys", "list", "--json", "--database", str(desk.database)))) == 1
    desk.set(QUEUE_SIGNING_KEY=str(tmp_path / "mounted"))
    desk.run("keys", "rotate")
    assert (tmp_path / "mounted").exists()
    assert sorted(path.name for path in other.iterdir()) == ["jobs.db", "jobs.db.key"]
    assert (other / "jobs.db").read_bytes() == b""  # nobody has opened it


def test_a_longer_notice(desk):
    kept(desk, FIRST.seed_hex())
    assert "signs from 2027-01-22T08:00:00Z" in desk.run("keys", "rotate", "--notice", "7d")


def test_after_a_leak(desk):
    kept(desk, FIRST.seed_hex())
    printed = desk.run("keys", "rotate", "--compromised").splitlines()
    (key,) = desk.file.read().keys
    assert printed == [f"{key.pair.kid} signs", "Running services read the change within seconds."]
    assert key.pair.kid != FIRST.kid


def test_keys_of_the_environment_can_be_listed_and_are_changed_there(desk):
    desk.set(QUEUE_SIGNING_KEY=f"{FIRST.seed_hex()},{SECOND.seed_hex()}")
    assert [row["status"] for row in desk.listed()] == ["active", "spare"]
    for arguments in (["keys", "rotate"], ["keys", "rotate", "--compromised"]):
        told = desk.run(*arguments, fails=True)
        assert "append ',<new seed>@<time>'" in told
        assert "@2027-01-16T09:00:00Z" in told
    assert not desk.file.path.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["keys", "list"], "there is no signing key"),
        (["keys", "rotate", "--notice", "1h"], "for 24 h before it signs"),
        (["keys", "list", "--database", "mysql://there"], "mysql://… is not supported"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(desk, arguments, reason):
    if "rotate" in arguments:
        kept(desk, FIRST.seed_hex())
    told = desk.run(*arguments, fails=True)
    assert told.startswith("queue-middleware: ")
    assert reason in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "arguments",
    [[], ["keys"], ["jobs"], ["keys", "rotate", "--notice", "soon"], ["keys", "rotate", "--notice", "30h", "--compromised"]],
)
def test_what_is_not_understood_is_answered_with_the_usage(desk, arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: queue-middleware" in capsys.readouterr().err


def test_a_wrong_option_of_the_environment_is_told(desk):
    desk.set(QUEUE_CONCURRENCY="many")
    assert "QUEUE_CONCURRENCY: 'many'" in desk.run("keys", "list", fails=True)


def test_where_there_is_no_queue_no_key_is_made(desk, tmp_path):
    for arguments in (["keys", "rotate"], ["keys", "rotate", "--compromised"]):
        assert f"there is no queue at {desk.database}; name its database with" in desk.run(*arguments, fails=True)
    assert list(tmp_path.iterdir()) == []


def test_as_a_module(desk):
    kept(desk, FIRST.seed_hex())
    done = subprocess.run(
        [sys.executable, "-m", "queue_middleware", "keys", "rotate"], capture_output=True, text=True, check=True, timeout=60
    )
    assert desk.file.read().keys[0].pair.kid in done.stdout
    assert done.stderr == ""


def test_it_is_what_the_package_installs():
    scripts = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"queue-middleware": f"{main.__module__}:{main.__name__}"}
