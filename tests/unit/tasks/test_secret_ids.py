import pytest

from queue_middleware.jobs.task_spec import TaskSpec
from queue_middleware.tasks.models import SecretIdKind
from queue_middleware.tasks.secret_ids import SecretIds, hash_of_id, is_secret_id

OLD, NEW = b"\0" * 32, b"\1" * 32
SPEC = TaskSpec("https://service.example", 30.0, callback=True, signal=True)


def test_an_id_has_256_bits_and_only_its_hash_is_stored() -> None:
    ids = SecretIds([OLD])
    task = ids.new_task(SPEC)
    token = ids.make(SecretIdKind.CALLBACK, task.salt)
    assert is_secret_id(token)
    assert len(bytes.fromhex(token)) == 32
    assert (task.callback_hash, task.signal_hash) == (hash_of_id(token), hash_of_id(ids.make(SecretIdKind.SIGNAL, task.salt)))
    assert ids.callback_id_of(task) == token
    stored = repr(task).encode()
    assert token.encode() not in stored
    assert bytes.fromhex(token) not in (task.salt, task.callback_hash, task.signal_hash)


def test_every_task_has_its_own_ids() -> None:
    ids = SecretIds([OLD])
    token = {
        secret
        for _ in range(50)
        for task in [ids.new_task(SPEC)]
        for secret in (task.salt, task.callback_hash, task.signal_hash)
    }
    assert len(token) == 150


def test_callback_id_and_signal_token_differ() -> None:
    ids = SecretIds([OLD])
    assert ids.make(SecretIdKind.CALLBACK, b"salt") != ids.make(SecretIdKind.SIGNAL, b"salt")


def test_without_a_signal_there_is_no_token() -> None:
    assert SecretIds([OLD]).new_task(TaskSpec("https://service.example", 30.0)).signal_hash is None


def test_a_changed_secret_keeps_the_ids_of_tasks_that_were_made_with_the_old_one() -> None:
    task = SecretIds([OLD]).new_task(SPEC)
    token = SecretIds([OLD]).make(SecretIdKind.CALLBACK, task.salt)
    assert SecretIds([NEW, OLD]).callback_id_of(task) == token
    assert SecretIds([NEW]).callback_id_of(task) is None
    assert SecretIds([NEW, OLD]).make(SecretIdKind.CALLBACK, task.salt) == SecretIds([NEW]).make(
        SecretIdKind.CALLBACK, task.salt
    )


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 63 + "\n", "\u0660" * 64])
def test_text_that_is_not_an_id(text: str) -> None:
    assert not is_secret_id(text)
