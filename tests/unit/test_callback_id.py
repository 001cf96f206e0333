import pytest

from queue_middleware.callback_id import CallbackIds, digest, is_token
from queue_middleware.tasks import SecretId
from queue_middleware.taskspec import TaskSpec

OLD, NEW = b"\0" * 32, b"\1" * 32
SPEC = TaskSpec("https://service.example", 30.0, callback=True, signal=True)


def test_an_id_has_256_bits_and_only_its_hash_is_stored() -> None:
    ids = CallbackIds([OLD])
    task = ids.new_task(SPEC)
    made = ids.make(SecretId.CALLBACK, task.salt)
    assert is_token(made)
    assert len(bytes.fromhex(made)) == 32
    assert (task.callback, task.signal) == (digest(made), digest(ids.make(SecretId.SIGNAL, task.salt)))
    assert ids.callback_of(task) == made
    stored = repr(task).encode()
    assert made.encode() not in stored
    assert bytes.fromhex(made) not in (task.salt, task.callback, task.signal)


def test_every_task_has_ids_of_its_own() -> None:
    ids = CallbackIds([OLD])
    made = {secret for _ in range(50) for task in [ids.new_task(SPEC)] for secret in (task.salt, task.callback, task.signal)}
    assert len(made) == 150


def test_callback_and_signal_are_strangers() -> None:
    ids = CallbackIds([OLD])
    assert ids.make(SecretId.CALLBACK, b"salt") != ids.make(SecretId.SIGNAL, b"salt")


def test_without_a_signal_there_is_no_token() -> None:
    assert CallbackIds([OLD]).new_task(TaskSpec("https://service.example", 30.0)).signal is None


def test_a_changed_secret_keeps_the_ids_of_tasks_that_were_made_with_the_old_one() -> None:
    task = CallbackIds([OLD]).new_task(SPEC)
    made = CallbackIds([OLD]).make(SecretId.CALLBACK, task.salt)
    assert CallbackIds([NEW, OLD]).callback_of(task) == made
    assert CallbackIds([NEW]).callback_of(task) is None
    assert CallbackIds([NEW, OLD]).make(SecretId.CALLBACK, task.salt) == CallbackIds([NEW]).make(SecretId.CALLBACK, task.salt)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 63 + "\n", "\u0660" * 64])
def test_what_is_no_id(text: str) -> None:
    assert not is_token(text)
