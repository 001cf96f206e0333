"""Numbers in shared memory: each process sees which topics the others have changed, and does not see its own changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from queue_middleware.jobs.store import Topic
from queue_middleware.stores.sqlite import shared_numbers
from queue_middleware.stores.sqlite.shared_numbers import SharedNumbers, TopicChanges


def test_other_processes_see_a_change_once_and_its_own_process_does_not(tmp_path: Path) -> None:
    one, other, third = (TopicChanges(SharedNumbers(tmp_path / "db")) for _ in range(3))
    one.announce((Topic.DELIVERY, Topic.CANCEL))
    assert one.changed() == []
    for changes in (other, third):
        assert set(changes.changed()) == {Topic.DELIVERY, Topic.CANCEL}
        assert changes.changed() == []


@pytest.mark.parametrize("topic", [topic for topic in Topic if topic is not Topic.STATUS])
def test_every_topic_has_a_number_of_its_own(tmp_path: Path, topic: Topic) -> None:
    one, other = (TopicChanges(SharedNumbers(tmp_path / "db")) for _ in range(2))
    one.announce((topic,))
    assert other.changed() == [topic]


def test_a_status_is_not_announced(tmp_path: Path) -> None:
    one, other = (TopicChanges(SharedNumbers(tmp_path / "db")) for _ in range(2))
    one.announce((Topic.STATUS,))
    assert other.changed() == []


def test_a_process_that_announces_does_not_miss_the_changes_of_others(tmp_path: Path) -> None:
    one, other = (TopicChanges(SharedNumbers(tmp_path / "db")) for _ in range(2))
    one.announce((Topic.WORK,))
    other.announce((Topic.WORK,))
    other.announce((Topic.WORK,))
    assert other.changed() == [Topic.WORK]
    assert one.changed() == [Topic.WORK]
    assert (one.changed(), other.changed()) == ([], [])


def test_a_process_that_starts_changes_no_number(tmp_path: Path) -> None:
    (tmp_path / "db.lock").write_bytes(b"12345678")  # of an earlier version, which had only the number of the pipes
    numbers = SharedNumbers(tmp_path / "db")
    changes = TopicChanges(numbers)
    before = numbers.pipes
    assert before == int.from_bytes(b"12345678", "little")
    TopicChanges(SharedNumbers(tmp_path / "db"))
    assert (numbers.pipes, changes.changed()) == (before, [])


def test_the_pipes_and_the_topics_have_different_numbers(tmp_path: Path) -> None:
    numbers, others = (SharedNumbers(tmp_path / "db") for _ in range(2))
    changes, before = TopicChanges(others), others.pipes
    numbers.change_pipes()
    assert changes.changed() == []
    assert others.pipes != before


def test_without_shared_memory_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr(shared_numbers.mmap, "mmap", refuse)
    one, other = (TopicChanges(SharedNumbers(tmp_path / "db")) for _ in range(2))
    one.announce(Topic)
    assert (one.are_shared, other.changed()) == (False, [])


def test_after_close_nothing_is_shared(tmp_path: Path) -> None:
    numbers, others = (SharedNumbers(tmp_path / "db") for _ in range(2))
    changes, of_others = TopicChanges(numbers), TopicChanges(others)
    assert changes.are_shared
    numbers.close()
    numbers.close()
    changes.announce(Topic)
    assert (changes.are_shared, of_others.changed()) == (False, [])
