import pytest

from queue_middleware.jobs.task_spec import TaskSpec
from queue_middleware.tasks.callback_tokens import CallbackIds, digest, is_token
from queue_middleware.tasks.models import SecretId

OLD, NEW = b"\0" * 32, b"\1" * 32
SPEC = TaskSpec("https://service.example", 30.0, callback=True, signal=True)


def test_an_id_has_256_bits_and_only_its_hash_is_stored() -> None:
    ids = CallbackIds([OLD])
    task = ids.new_task(SPEC)
    token = ids.make(SecretId.CALLBACK, task.salt)
    assert is_token(token)
    assert len(bytes.fromhex(token)) == 32
    assert (task.callback, task.signal) == (digest(token), digest(ids.make(SecretId.SIGNAL, task.salt)))
    assert ids.callback_of(task) == token
    stored = repr(task).encode()
    assert token.encode() not in stored
    assert bytes.fromhex(token) not in (task.salt, task.callback, task.signal)


def test_every_task_has_ids_of_its_own() -> None:
    ids = CallbackIds([OLD])
    token = {secret for _ in range(50) for task in [ids.new_task(SPEC)] for secret in (task.salt, task.callback, task.signal)}
    assert len(token) == 150


def test_callback_id_and_signal_token_differ() -> None:
    ids = CallbackIds([OLD])
    assert ids.make(SecretId.CALLBACK, b"salt") != ids.make(SecretId.SIGNAL, b"salt")


def test_without_a_signal_there_is_no_token() -> None:
    assert CallbackIds([OLD]).new_task(TaskSpec("https://service.example", 30.0)).signal is None


def test_a_changed_secret_keeps_the_ids_of_tasks_that_were_made_with_the_old_one() -> None:
    task = CallbackIds([OLD]).new_task(SPEC)
    token = CallbackIds([OLD]).make(SecretId.CALLBACK, task.salt)
    assert CallbackIds([NEW, OLD]).callback_of(task) == token
    assert CallbackIds([NEW]).callback_of(task) is None
    assert CallbackIds([NEW, OLD]).make(SecretId.CALLBACK, task.salt) == CallbackIds([NEW]).make(SecretId.CALLBACK, task.salt)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 63 + "\n", "\u0660" * 64])
def test_text_that_is_not_an_id(text: str) -> None:
    assert not is_token(text)
