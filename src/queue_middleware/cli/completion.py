"""`queue-middleware completion`: the script with which a shell completes this command."""

from __future__ import annotations

import argparse
from importlib import resources
from typing import Any

from queue_middleware.jobs.struct import Struct

from .flags import set_command
from .output import Terminal

SCRIPTS = {"bash": "queue-middleware.bash", "zsh": "queue-middleware.zsh", "fish": "queue-middleware.fish"}
"""The file of each shell in the folder `completions`; `completion_scripts` writes them."""


class Completion(Struct, frozen=True):
    """The script of one shell."""

    shell: str
    script: str


OUTPUTS: dict[str, Any] = {"completion": Completion}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument."""
    parser.add_argument("shell", metavar="SHELL", choices=list(SCRIPTS), help=", ".join(SCRIPTS))
    parser.description = completion.__doc__
    set_command(parser, completion, database=False)


def completion(chosen: argparse.Namespace, terminal: Terminal) -> None:
    """Print the script that completes commands and flags of `queue-middleware` and `qm`.

    For bash: `eval "$(queue-middleware completion bash)"` in `~/.bashrc`. For zsh: the same with `zsh` in `~/.zshrc`, after
    `compinit`. For fish: `queue-middleware completion fish | source` in `~/.config/fish/config.fish`.
    """
    script = read_script(chosen.shell)
    if terminal.json:
        terminal.print_json(Completion(chosen.shell, script))
    else:
        print(script, end="")


def read_script(shell: str) -> str:
    """The script of a shell, as it is in this package."""
    return (resources.files(__package__) / "completions" / SCRIPTS[shell]).read_text(encoding="utf-8")
