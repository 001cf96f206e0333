"""The store that the option `database` selects, and the path of the generated secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from queue_middleware.errors import SettingsError
from queue_middleware.settings import Settings
from queue_middleware.stores import locate, open_stores


@pytest.mark.parametrize("scheme", ["", "sqlite:///"])
async def test_a_path_or_a_sqlite_url_selects_sqlite(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "queue.sqlite3"
    stores = open_stores(Settings(database=f"{scheme}{path}", min_free_disk=0))
    assert (stores.location.name, stores.location.secrets) == (str(path), path)
    assert not stores.location.exists()
    await stores.database.open()
    try:
        assert stores.location.exists()
        assert stores.database.is_first
        assert (await stores.jobs.counts()).jobs == {}
        assert await stores.webhooks.receivers([]) == []
        assert (await stores.tasks.page("client", None, limit=1, offset=0)).total == 0
    finally:
        await stores.database.close()


@pytest.mark.parametrize("database", ["postgresql://host/name", "mysql://host/name"])
def test_an_unknown_scheme_is_refused_with_what_is_supported(database: str) -> None:
    for refused in (lambda: locate(database), lambda: open_stores(Settings(database=database))):
        with pytest.raises(
            SettingsError, match=r"database: the scheme \w+:// is not supported; write a path or sqlite:///path"
        ):
            refused()
