from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from queue_middleware.stores.sqlite.locks import LivenessLock, WriteLock, dead_owners, remove_dead_liveness_locks


def test_two_connections_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    one, other = WriteLock(tmp_path / "lock"), WriteLock(tmp_path / "lock")
    order: list[str] = []

    def second() -> None:
        with other:
            order.append("second")

    with one:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    one.close()
    other.close()
    other.close()


def test_a_running_owner_is_not_dead(tmp_path: Path) -> None:
    lock = LivenessLock(tmp_path / "db", "me")
    assert dead_owners(tmp_path / "db", "judge", ["me"]) == []
    remove_dead_liveness_locks(tmp_path / "db", [])
    assert [path.name for path in tmp_path.iterdir()] == ["db.alive-me"]
    lock.close()
    lock.close()
    assert list(tmp_path.iterdir()) == []


def test_an_owner_without_a_liveness_file_is_not_dead(tmp_path: Path) -> None:
    assert dead_owners(tmp_path / "db", "judge", ["nobody"]) == []


def test_a_killed_process_is_dead_at_once(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from queue_middleware.stores.sqlite.locks import LivenessLock
lock = LivenessLock(Path({str(tmp_path / "db")!r}), "victim")
print("alive", flush=True)
input()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == "alive\n"
    assert dead_owners(tmp_path / "db", "judge", ["victim"]) == []
    process.kill()
    process.wait(10)
    process.stdin.close()
    process.stdout.close()
    assert dead_owners(tmp_path / "db", "judge", ["victim"]) == ["victim"]
    remove_dead_liveness_locks(tmp_path / "db", ["victim"])
    assert [path.name for path in tmp_path.iterdir()] == ["db.alive-victim"]
    remove_dead_liveness_locks(tmp_path / "db", [])
    assert list(tmp_path.iterdir()) == []
