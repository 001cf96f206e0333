"""What all commands have in common."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import jsonschema_rs
import pytest

from queue_middleware.cli import COMMANDS, main, module_of
from queue_middleware.cli.failures import report
from queue_middleware.cli.output import Terminal, duration, printable, size, timestamp
from queue_middleware.errors import NotRunning, SettingsError, StoreError, UnknownRequest

HEAVY = {"asyncio", "dataclasses", "inspect", "msgspec", "sqlite3", "anyio", "httpx", "starlette", "queue_middleware.errors"}


def imported_by(*arguments: str) -> set[str]:
    """The modules that a process has imported at the end of a command."""
    program = "import sys; from queue_middleware.cli import main\ntry: main()\nexcept SystemExit: pass\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, timeout=60, env={**os.environ}
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_heavy():
    """Imports are nearly all that `--help` costs: its budget is 80 ms, most of which Python itself takes."""
    assert imported_by("--help").isdisjoint(HEAVY)


def test_a_command_imports_no_other_command():
    found = imported_by("keys", "--help")
    assert "queue_middleware.cli.keys" in found
    others = {f"queue_middleware.cli.{name}" for name in COMMANDS} - {"queue_middleware.cli.keys"}
    assert found.isdisjoint(others)


def test_help_lists_all_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    assert [name for name in COMMANDS if not re.search(rf"^    {name}$|^    {name} ", printed, re.MULTILINE)] == []


def test_every_command_has_a_module():
    for name in COMMANDS:
        assert callable(module_of(name).add_arguments)


def test_flags_have_defaults_in_the_environment(terminal):
    terminal.in_queue(lambda stores: stores.jobs.counts())
    terminal.set(QUEUE_CLI_JSON="1", QUEUE_CLI_STATE="queued", QUEUE_CLI_LIMIT="7")
    status, printed = terminal.run_any("requests", "list")
    assert (status, json.loads(printed)) == (3, {"requests": [], "next": None})


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("QUEUE_CLI_JSON", "perhaps", "neither 1 nor 0"),
        ("QUEUE_CLI_ERROR", "bad", "is none of request_timeout"),
        ("QUEUE_CLI_LIMIT", "many", "not a positive number"),
    ],
)
def test_invalid_defaults_in_the_environment_are_reported(terminal, capsys, variable, value, reason):
    terminal.set(**{variable: value})
    with pytest.raises(SystemExit, match="2"):
        main(["requests", "list"])
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), 130),
        (SettingsError("x"), 1),
        (UnknownRequest("x"), 3),
        (StoreError("x"), 5),
        (NotRunning("x", 1), 5),
    ],
)
def test_the_exit_status_of_errors(error, status, capsys):
    assert report(error) == status
    assert capsys.readouterr().out == ""


def test_a_defect_is_raised():
    with pytest.raises(ZeroDivisionError):
        report(ZeroDivisionError())


def test_a_reader_that_ends_early_ends_the_command(terminal):
    terminal.in_queue(lambda stores: stores.jobs.counts())
    program = "import sys; from queue_middleware.cli import main; sys.exit(main(['requests', 'list', '--json']))"
    command = [sys.executable, "-c", program]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141


def test_escape_sequences_are_printed_on_terminals_only(monkeypatch):
    terminal = Terminal(lambda: 0.0)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert terminal.bold("x") == "x"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert terminal.bold("x") == "\x1b[1mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.bold("x") == "x"


def test_texts_of_clients_cannot_control_the_terminal():
    assert printable("naïve/路径") == "naïve/路径"
    assert printable("\x1b[2J\n\u202e") == "\\x1b[2J\\n\\u202e"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.44, "9.4 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (252, "4 min 12 s"),
        (720, "12 min"),
        (11_100, "3 h 5 min"),
        (86_400, "24 h"),
        (300_000, "3 d"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_sizes_and_times():
    assert [size(one) for one in (0, 1023, 1536, 5 * 2**30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
    assert timestamp(1_800_000_000_007) == "2027-01-15T08:00:00.007Z"
    assert Terminal(lambda: 1_800_000_060.0).since(1_800_000_000_000) == "1 min ago"
    assert Terminal(lambda: 1_800_000_000.0).since(1_800_000_060_000) == "in 1 min"
    assert Terminal(lambda: 0.0).since(None) == "-"


def test_schemas_are_valid(terminal):
    from queue_middleware.cli.schemas import schemas

    for command, schema in schemas().items():
        jsonschema_rs.meta.validate(schema)
        assert command.split()[0] in COMMANDS


def run_command(*arguments: str, out: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process, with this descriptor as its standard output."""
    return subprocess.run(
        [sys.executable, "-m", "queue_middleware", *arguments],
        stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_full_disk_is_reported_in_one_line(buffered):
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = run_command("metrics", "rules", out=full, PYTHONUNBUFFERED=buffered)
    finally:
        os.close(full)
    message = "queue-middleware: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)


@pytest.mark.parametrize("arguments", [("--help",), ("metrics", "rules")])
def test_a_reader_that_has_ended_is_no_error(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_command(*arguments, out=writer, PYTHONUNBUFFERED="")
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_standard_output_may_have_another_encoding(tmp_path):
    with (tmp_path / "help").open("wb") as file:
        done = run_command("requests", "list", "--help", out=file.fileno(), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"S,\u2026" in (tmp_path / "help").read_text()


def test_json_contains_no_characters_that_control_a_terminal(capsys):
    text = "\x1b\x7f\x9b\u202e\U000e0001 ä"
    Terminal(lambda: 0.0).print_json([text])
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert "ä" in printed
    assert json.loads(printed) == [text]


def test_the_release_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert re.fullmatch(r"queue-middleware \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_the_choices_of_a_flag_are_listed_as_they_are_written(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["requests", "list", "--error", "bad"])
    assert re.search(r"choose from '?request_timeout'?, ", capsys.readouterr().err)


def test_a_reason_does_not_control_the_terminal(capsys):
    assert report(SettingsError("line 1: \x1b[2J\x9b")) == 1
    assert capsys.readouterr().err == "queue-middleware: line 1: \\x1b[2J\\x9b\n"
