"""The public types: strict mypy over code as users write it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).parents[1] / "typing"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["applications", "api", "mistakes"])
def test_code_of_users_is_well_typed(name: str, tmp_path: Path) -> None:
    # In another folder, so that the installed package is checked without this project's settings.
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path),
        str(CODE / f"{name}.py"),
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
