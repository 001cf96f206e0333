import json
import subprocess

import pytest

from queue_middleware.cli import COMMANDS, main
from queue_middleware.cli.completion import SCRIPTS, read_script
from queue_middleware.cli.completion_scripts import make_script
from tests.support.tools import tool


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_is_that_of_the_parser(shell):
    assert read_script(shell) == make_script(shell), "run: python -m queue_middleware.cli.completion_scripts"


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_command_prints_the_script(shell, capsys):
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == read_script(shell)


def test_the_script_as_a_document(capsys):
    assert main(["completion", "bash", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": "bash", "script": read_script("bash")}


def run(*command: str, script: str = "") -> str:
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.mark.parametrize("name", ["queue-middleware", "qm"])
def test_bash_completes_commands_and_flags(name):
    bash = tool("bash")
    script = read_script("bash")
    ask = f'COMP_WORDS=({name} "$@"); COMP_CWORD=$#; _shtab_queue_middleware; printf "%s\\n" "${{COMPREPLY[@]}}"'

    def complete(*words: str) -> set[str]:
        return set(run(bash, "--norc", "-s", *words, script=f"{script}\ncomplete -p {name} >/dev/null\n{ask}\n").split())

    assert complete("") >= set(COMMANDS)
    assert complete("ver") == {"verify"}
    assert "--answer" in complete("listen", "--a")
    assert complete("completion", "fi") == {"fish"}


def test_zsh_can_read_the_script(tmp_path):
    (tmp_path / "script").write_text(read_script("zsh"))
    run(tool("zsh"), "-f", "-n", str(tmp_path / "script"))
    loaded = f'autoload -U compinit; compinit -D -u; eval "$(<{tmp_path}/script)"; print $_comps[queue-middleware] $_comps[qm]'
    assert run(tool("zsh"), "-f", "-c", loaded).split() == ["_shtab_queue_middleware"] * 2


@pytest.mark.parametrize("name", ["queue-middleware", "qm"])
def test_fish_completes_commands_and_flags(name, tmp_path):
    fish = tool("fish")
    (tmp_path / "script.fish").write_text(read_script("fish"))

    def complete(line: str) -> set[str]:
        command = f'source {tmp_path}/script.fish; complete --do-complete "{line}"'
        return {found.split("\t")[0] for found in run(fish, "--no-config", "--command", command).splitlines()}

    assert complete(f"{name} ver") == {"verify"}
    assert complete(f"{name} ") >= set(COMMANDS)
    assert "--answer" in complete(f"{name} listen --a")
