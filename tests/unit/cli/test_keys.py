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

FIRST, SECOND = KeyPair(bytes(32)), KeyPair(b"2" * 32)


def key_file(terminal) -> KeyFile:
    return KeyFile(terminal.database.with_name("queue.sqlite3.key"), clock=lambda: terminal.now)


def listed(terminal) -> list[dict[str, object]]:
    return json.loads(terminal.run("keys", "list", "--json"))


def write_key_file(terminal, text: str) -> None:
    key_file(terminal).path.write_text(text)
    key_file(terminal).path.chmod(0o600)


def test_rotate_prints_what_happens_when(terminal):
    write_key_file(terminal, FIRST.seed_hex())
    printed = terminal.run("keys", "rotate")
    new = key_file(terminal).read().keys[1].pair
    assert printed.splitlines() == [
        f"{FIRST.kid} signs; published until 2027-01-18T09:00:00Z",
        f"{new.kid} is published now and signs from 2027-01-16T09:00:00Z",
        "Running services read the change within seconds.",
    ]
    assert new.seed_hex() not in printed


def test_list_prints_all_keys(terminal):
    write_key_file(terminal, FIRST.seed_hex())
    terminal.run("keys", "rotate")
    new = key_file(terminal).read().keys[1].pair
    table = [line.split("  ") for line in terminal.run("keys", "list").splitlines()]
    assert [[word.strip() for word in line if word.strip()] for line in table] == [
        ["KID", "STATUS", "SIGNS FROM", "PUBLISHED UNTIL"],
        [FIRST.kid, "active", "-", "2027-01-18T09:00:00Z"],
        [new.kid, "next", "2027-01-16T09:00:00Z", "-"],
    ]
    terminal.now += LEAD_TIME
    assert [row["status"] for row in listed(terminal)] == ["old", "active"]
    terminal.now += 48 * 3600
    assert [row["status"] for row in listed(terminal)] == ["retired", "active"]


def test_list_prints_json(terminal):
    write_key_file(terminal, FIRST.seed_hex())
    assert listed(terminal) == [
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
    (key,) = key_file(terminal).read().keys
    assert printed == [f"{key.pair.kid} signs", "Running services read the change within seconds."]
    assert key.pair.kid != FIRST.kid


def test_keys_in_the_environment_can_be_listed_but_not_rotated(terminal):
    terminal.set(QUEUE_SIGNING_KEY=f"{FIRST.seed_hex()},{SECOND.seed_hex()}")
    assert [row["status"] for row in listed(terminal)] == ["active", "spare"]
    for arguments in (["keys", "rotate"], ["keys", "rotate", "--compromised"]):
        error = terminal.run(*arguments, fails=True)
        assert "append ',<new seed>@<time>'" in error
        assert "@2027-01-16T09:00:00Z" in error
    assert not key_file(terminal).path.exists()


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
    assert key_file(terminal).read().keys[0].pair.kid in done.stdout
    assert done.stderr == ""


def test_the_package_installs_the_command():
    scripts = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == dict.fromkeys(("queue-middleware", "qm"), f"{main.__module__}:{main.__name__}")
