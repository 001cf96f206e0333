"""Measures the files of a database for metrics."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from queue_middleware.observability.metrics import catalog
from queue_middleware.observability.metrics.numbers import Row, gauge
from queue_middleware.settings import Settings
from queue_middleware.webhooks.formats.user_agent import VERSION

from .disk import required_space


def measure(path: Path, settings: Settings) -> list[Row]:
    """The sizes of the files, and the space of their disk. Blocking."""
    rows = [gauge(catalog.BUILD, 1, VERSION, "sqlite"), gauge(catalog.QUEUE_LIMIT, settings.max_queued)]
    with suppress(OSError):
        usage = shutil.disk_usage(path.parent)
        rows.append(gauge(catalog.DISK_FREE, usage.free))
        rows.append(gauge(catalog.DISK_FLOOR, required_space(usage.total, settings.min_free_disk)))
    for part, file in (("main", path), ("wal", path.with_name(f"{path.name}-wal"))):
        with suppress(OSError):
            rows.append(gauge(catalog.DATABASE_SIZE, file.stat().st_size, part))
    return rows
