"""Programs that are not Python packages. A test without its program is skipped, with the reason; `.ci/run` requires them."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def tool(name: str, package: str | None = None) -> str:
    """The path of a program, e.g. `nginx`. `package` is Debian's."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        missing(f"{name} is not installed (Debian's package: {package or name})")
    return path


def missing(reason: str) -> NoReturn:
    """Skip the test; fail it with QUEUE_TESTS_REQUIRE_TOOLS=1."""
    if os.environ.get("QUEUE_TESTS_REQUIRE_TOOLS"):
        pytest.fail(reason)
    pytest.skip(reason)
