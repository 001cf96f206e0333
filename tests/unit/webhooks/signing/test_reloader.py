import asyncio
from contextlib import asynccontextmanager

import pytest

from queue_middleware.errors import SettingsError
from queue_middleware.events import KeysChanged, OperatorWarning
from queue_middleware.settings import Settings
from queue_middleware.webhooks.signing import reloader
from queue_middleware.webhooks.signing.keyfile import KeyFile
from queue_middleware.webhooks.signing.keyring import LEAD_TIME
from queue_middleware.webhooks.signing.keys import KeyPair
from queue_middleware.webhooks.signing.reloader import KeyReloader

NOW = 1_800_000_000.0
FIRST, SECOND = KeyPair(bytes(32)), KeyPair(b"2" * 32)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Setup:
    """A reloader of a key file, a manual clock, and the emitted events."""

    def __init__(self, folder) -> None:
        self.now = NOW
        self.events: list[object] = []
        self.database = folder / "queue.sqlite3"
        self.file = KeyFile(folder / "queue.sqlite3.key", clock=lambda: self.now)

    def reloader(self, **options: object) -> KeyReloader:
        return KeyReloader(Settings(**options), self.database, self.events.append, clock=lambda: self.now)

    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, OperatorWarning)]


@pytest.fixture
def setup(tmp_path) -> Setup:
    return Setup(tmp_path)


def published(signer) -> set[str]:
    return {entry["kid"] for entry in signer.jwks()["keys"]}


@asynccontextmanager
async def running(watch: KeyReloader):
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        watch.stop()
        async with asyncio.timeout(5):
            await task


async def test_the_first_key_is_created(setup):
    signer = await setup.reloader().open()
    assert signer.active.kid == setup.file.read().keys[0].pair.kid
    assert setup.events == []


async def test_keys_of_the_option_are_not_written_to_a_file(setup, tmp_path):
    watch = setup.reloader(signing_key=f"{FIRST.seed_hex()},{SECOND.seed_hex()}")
    signer = await watch.open()
    await watch.check()
    assert (signer.active.kid, published(signer)) == (FIRST.kid, {FIRST.kid, SECOND.kid})
    assert list(tmp_path.iterdir()) == []


async def test_a_file_named_by_the_option_is_read_and_not_created(setup, tmp_path):
    path = tmp_path / "elsewhere"
    with pytest.raises(SettingsError, match="there is no signing key"):
        await setup.reloader(signing_key=str(path)).open()
    path.write_text(FIRST.seed_hex())
    path.chmod(0o600)
    assert (await setup.reloader(signing_key=str(path)).open()).active.kid == FIRST.kid


async def test_shared_secrets_sign_too(setup):
    signer = await setup.reloader(webhook_secret=(SECRET, SECRET)).open()
    assert len(signer.macs(b"message")) == 2


async def test_a_rotation_is_loaded(setup):
    watch = setup.reloader()
    signer = await watch.open()
    first = signer.active.kid
    second = setup.file.rotate().keys[1].pair.kid
    assert published(signer) == {first}
    await watch.check()
    assert (signer.active.kid, published(signer)) == (first, {first, second})
    assert setup.events == [KeysChanged(first)]
    setup.now += LEAD_TIME
    assert signer.active.kid == second  # by the clock, even if the file is not read
    await watch.check()
    assert len(setup.events) == 1


async def test_a_change_is_loaded_by_the_loop(setup, monkeypatch):
    monkeypatch.setattr(reloader, "CHECK_INTERVAL", 0.001)
    watch = setup.reloader()
    signer = await watch.open()
    changed = asyncio.Event()
    watch._emit = lambda event: changed.set()
    async with running(watch):
        new = await asyncio.to_thread(setup.file.replace_all)
        async with asyncio.timeout(5):
            await changed.wait()
    assert signer.active.kid == new.keys[0].pair.kid


async def test_stopping_does_not_wait_for_the_next_check(setup):
    watch = setup.reloader()
    await watch.open()
    async with running(watch):
        watch.stop()
        watch.stop()


async def test_a_missing_or_malformed_file_changes_nothing_and_warns_once(setup):
    watch = setup.reloader()
    signer = await watch.open()
    first, text = signer.active.kid, setup.file.path.read_text()
    setup.file.path.unlink()
    for _ in range(3):
        await watch.check()
    setup.file.path.write_text("nonsense")
    setup.file.path.chmod(0o600)
    for _ in range(3):
        await watch.check()
    assert (signer.active.kid, published(signer)) == (first, {first})
    assert [warning.rpartition("; ")[2] for warning in setup.warnings()] == ["the keys that are loaded stay in use"] * 2
    assert ["there is no signing key" in warning for warning in setup.warnings()] == [True, False]
    setup.file.path.write_text(text)
    await watch.check()
    assert len(setup.events) == 2
    setup.file.path.unlink()
    await watch.check()
    assert len(setup.warnings()) == 3  # another time, another warning


async def test_a_file_that_became_readable_by_others_is_reported(setup):
    watch = setup.reloader()
    await watch.open()
    setup.file.path.chmod(0o604)
    await watch.check()
    assert "other users can read or write" in setup.warnings()[0]


async def test_a_file_with_the_same_keys_emits_nothing(setup):
    watch = setup.reloader()
    await watch.open()
    setup.file.path.touch()
    await watch.check()
    assert setup.events == []


async def test_concurrent_checks(setup):
    watch = setup.reloader()
    signer = await watch.open()
    new = setup.file.replace_all()
    await asyncio.gather(*(watch.check() for _ in range(20)))
    assert signer.active.kid == new.keys[0].pair.kid
    assert len(setup.events) == 1
