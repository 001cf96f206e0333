import pytest

from queue_middleware.jobs.task_spec import TaskSpec
from queue_middleware.tasks.callback_tokens import CallbackTokens, is_token, token_hash
from queue_middleware.tasks.models import TokenKind

OLD, NEW = b"\0" * 32, b"\1" * 32
SPEC = TaskSpec("https://service.example", 30.0, callback=True, signal=True)


def test_an_id_has_256_bits_and_only_its_hash_is_stored() -> None:
    ids = CallbackTokens([OLD])
    task = ids.new_task(SPEC)
    token = ids.make(TokenKind.CALLBACK, task.salt)
    assert is_token(token)
    assert len(bytes.fromhex(token)) == 32
    assert (task.callback_hash, task.signal_hash) == (token_hash(token), token_hash(ids.make(TokenKind.SIGNAL, task.salt)))
    assert ids.callback_id_of(task) == token
    stored = repr(task).encode()
    assert token.encode() not in stored
    assert bytes.fromhex(token) not in (task.salt, task.callback_hash, task.signal_hash)


def test_every_task_has_its_own_ids() -> None:
    ids = CallbackTokens([OLD])
    token = {
        secret
        for _ in range(50)
        for task in [ids.new_task(SPEC)]
        for secret in (task.salt, task.callback_hash, task.signal_hash)
    }
    assert len(token) == 150


def test_callback_id_and_signal_token_differ() -> None:
    ids = CallbackTokens([OLD])
    assert ids.make(TokenKind.CALLBACK, b"salt") != ids.make(TokenKind.SIGNAL, b"salt")


def test_without_a_signal_there_is_no_token() -> None:
    assert CallbackTokens([OLD]).new_task(TaskSpec("https://service.example", 30.0)).signal_hash is None


def test_a_changed_secret_keeps_the_ids_of_tasks_that_were_made_with_the_old_one() -> None:
    task = CallbackTokens([OLD]).new_task(SPEC)
    token = CallbackTokens([OLD]).make(TokenKind.CALLBACK, task.salt)
    assert CallbackTokens([NEW, OLD]).callback_id_of(task) == token
    assert CallbackTokens([NEW]).callback_id_of(task) is None
    assert CallbackTokens([NEW, OLD]).make(TokenKind.CALLBACK, task.salt) == CallbackTokens([NEW]).make(
        TokenKind.CALLBACK, task.salt
    )


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 63 + "\n", "\u0660" * 64])
def test_text_that_is_not_an_id(text: str) -> None:
    assert not is_token(text)
