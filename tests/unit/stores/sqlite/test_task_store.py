"""The counters of waiting jobs and of tasks always equal the numbers of counted rows, whichever process writes."""

from __future__ import annotations

import sqlite3

import pytest

from queue_middleware.stores.sqlite.sql.schema import migrate

COLUMNS = "id, id_random, state, priority, client, max_attempts, due_at, attempt"
INSERT = f"INSERT INTO job ({COLUMNS}) VALUES (?, zeroblob(10), ?, ?, ?, 1, ?, ?)"
LEVELS = ((1, 10), (2, 20), (3, 28), (4, 36))
IDS = [*range(0, 5000, 700), *range(1 << 20, 1 << 29, 1 << 26), *range(1 << 36, 1 << 38, 1 << 35)]


@pytest.fixture
def connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    return connection


def fill(connection: sqlite3.Connection) -> None:
    for number, key in enumerate(IDS):
        state = ("queued", "queued", "delayed")[number % 3]
        due_at = 1 if state == "delayed" else None
        # Some of the delayed jobs have had an attempt, others have not.
        connection.execute(INSERT, (key, state, 5 + number % 2 * 4, f"c{number % 4}", due_at, number // 3 % 2))


def check(connection: sqlite3.Connection) -> int:
    """Compare every counter with the jobs. Returns how many jobs wait."""
    everyone = "FROM job WHERE state IN ('queued', 'delayed') GROUP BY"
    kind = "iif(state = 'delayed' AND attempt = 0, 'scheduled', state)"
    for level, bits in LEVELS:
        counted = f"SELECT {kind}, priority, id >> {bits}, count(*) {everyone} 1, 2, 3"
        kept = f"SELECT state, priority, bucket, jobs FROM backlog WHERE level = {level} ORDER BY 1, 2, 3"
        assert connection.execute(kept).fetchall() == connection.execute(f"{counted} ORDER BY 1, 2, 3").fetchall()
    counted = f"SELECT client, count(*) FROM job WHERE {kind} IN ('queued', 'delayed') GROUP BY 1 ORDER BY 1"
    assert connection.execute("SELECT * FROM backlog_client ORDER BY 1").fetchall() == connection.execute(counted).fetchall()
    places = "SELECT position, (SELECT count(*) FROM job WHERE state = 'queued' AND (priority, id) < (me.priority, me.id))"
    rows = connection.execute(f"{places} FROM queue_position JOIN job AS me USING (id)").fetchall()
    assert [kept for kept, _ in rows] == [counted for _, counted in rows]
    return len(rows)


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("UPDATE job SET state = 'queued', due_at = NULL", len(IDS)),
        ("UPDATE job SET state = 'delayed', due_at = 7", len(IDS)),
        ("UPDATE job SET state = 'queued', due_at = NULL WHERE id % 2", len(IDS)),
        ("UPDATE job SET state = 'running', owner = 'o', token = 1, lease_until = 1, due_at = NULL", 0),
        ("UPDATE job SET state = 'failed', finished_at = 1, error_type = 'x', due_at = NULL WHERE id < 2100", len(IDS) - 3),
        ("UPDATE job SET progress = 0.5", len(IDS)),
        ("DELETE FROM job WHERE id > 3000", 5),
        ("DELETE FROM job", 0),
    ],
)
def test_counts_follow_every_statement(connection: sqlite3.Connection, statement: str, left: int) -> None:
    fill(connection)
    assert check(connection) == len(IDS)
    connection.execute(statement)
    assert check(connection) == left
    assert connection.execute("SELECT count(*) FROM backlog WHERE jobs = 0").fetchone() == (0,)
    connection.close()


def test_counts_are_rolled_back_with_their_transaction(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    fill(connection)
    connection.execute("ROLLBACK")
    assert check(connection) == 0
    connection.close()


def test_a_job_that_starts_at_once_changes_no_count(connection: sqlite3.Connection) -> None:
    before = connection.total_changes
    connection.execute(
        "INSERT INTO job (id, id_random, state, priority, client, max_attempts, owner, token, lease_until)"
        " VALUES (1, zeroblob(10), 'running', 5, '', 1, 'o', 1, 1)"
    )
    connection.execute("UPDATE job SET state = 'completed', status = 200, finished_at = 1, owner = NULL, lease_until = NULL")
    assert connection.total_changes - before == 3  # triggers would be counted here; there is one, which counts outcomes
    assert connection.execute("SELECT count(*) FROM backlog").fetchone() == (0,)
    connection.close()
