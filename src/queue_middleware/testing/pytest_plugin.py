"""pytest plugin, loaded wherever this package is installed: tests never open the database that the service uses.

It sets one variable before the first test module is imported, and imports nothing else of the package. `isolation` replaces
the file when a queue is created.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from .isolation import REAL, VARIABLE, Isolation


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Set the variable before `conftest.py` can import the application, which creates its queue. Runs in xdist workers too."""
    if os.environ.get(REAL, "") not in ("", "0", "false"):
        return
    folder = tempfile.mkdtemp(prefix="queue-tests-")
    basetemp: str | None = early_config.known_args_namespace.basetemp
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = Isolation.of(
        Path(folder),
        root=early_config.rootpath,
        here=early_config.invocation_params.dir,
        basetemp=None if basetemp is None else Path(basetemp),
    ).written()

    def undo() -> None:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
        shutil.rmtree(folder, ignore_errors=True)

    early_config.add_cleanup(undo)
