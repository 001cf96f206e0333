"""What is true of a database of SQLite whatever has been done to it: each query finds the rows for which it is not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_WAITING = "state = 'queued' OR (state = 'delayed' AND attempt > 0)"
_COUNTED = {
    "backlog": ("state, level, priority, bucket, jobs", """
        SELECT iif(state = 'delayed' AND attempt = 0, 'scheduled', state), level, priority, id >> bits, count(*)
        FROM job, (SELECT 1 AS level, 10 AS bits UNION ALL VALUES (2, 20), (3, 28), (4, 36))
        WHERE state IN ('queued', 'delayed') GROUP BY 1, 2, 3, 4
        UNION ALL SELECT 'task', 4, 0, 0, count(*) FROM job WHERE task <> 0 AND finished_at IS NULL HAVING count(*) > 0"""),
    "backlog_client": ("client, jobs", f"SELECT client, count(*) FROM job WHERE {_WAITING} GROUP BY 1"),
    "unfinished_tasks": ("client, jobs", "SELECT client, count(*) FROM job WHERE task <> 0 AND finished_at IS NULL GROUP BY 1"),
}  # fmt: skip

_BROKEN = {
    "a row belongs to nothing": "PRAGMA foreign_key_check",
    "an ended request has no webhook about its end": """
        SELECT id FROM job WHERE finished_at IS NOT NULL AND webhook IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM delivery WHERE job_id = job.id AND number = 0)""",
    "a webhook about the end of a request that has not ended": """
        SELECT job_id FROM delivery JOIN job ON job.id = job_id WHERE number = 0 AND finished_at IS NULL""",
    "a request that has not ended has lost its content": """
        SELECT id FROM job WHERE finished_at IS NULL AND id NOT IN (SELECT job_id FROM payload)""",
    "an ended request has kept what only an attempt needs": """
        SELECT job_id FROM request_chunk JOIN job ON job.id = job_id WHERE finished_at IS NOT NULL
        UNION ALL SELECT job_id FROM early_result JOIN job ON job.id = job_id WHERE finished_at IS NOT NULL
        UNION ALL SELECT job_id FROM task JOIN job ON job.id = job_id
            WHERE finished_at IS NOT NULL AND (awaits_until IS NOT NULL OR poll_at IS NOT NULL
                OR task.token IS NOT NULL OR credentials IS NOT NULL OR secrets IS NOT NULL)""",
    "a poll has no host": "SELECT job_id FROM task WHERE poll_at IS NOT NULL AND poll_host IS NULL",
    "a due webhook has no receiver that is looked at in time": """
        SELECT delivery.flow, min(due_at) AS first FROM delivery
            LEFT JOIN flow ON flow.flow = delivery.flow LEFT JOIN receiver ON receiver.host = flow.host
        WHERE delivery.state = 'pending' GROUP BY delivery.flow
        HAVING NOT ifnull(flow.next_at <= max(first, ifnull(flow.open_until, 0), flow.used_at)
            AND receiver.next_at <= max(flow.next_at, ifnull(receiver.open_until, 0)), 0)""",
}  # fmt: skip


def broken_invariants(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """What is wrong, with the rows that show it."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        found = {name: connection.execute(query).fetchall() for name, query in _BROKEN.items()}
        for table, (columns, counted) in _COUNTED.items():
            kept = set(connection.execute(f"SELECT {columns} FROM {table}"))
            found[f"{table} is not what counting gives"] = list(kept ^ set(connection.execute(counted)))
    return {name: rows for name, rows in found.items() if rows}
