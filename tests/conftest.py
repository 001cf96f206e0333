"""What every test shares."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio only: aiosqlite and the frameworks under test are at home there."""
    return "asyncio"
