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


class Bench:
    """A watch on a key file, a clock that is moved by hand, and what was announced."""

    def __init__(self, folder) -> None:
        self.now = NOW
        self.heard: list[object] = []
        self.database = folder / "queue.sqlite3"
        self.file = KeyFile(folder / "queue.sqlite3.key", clock=lambda: self.now)

    def reloader(self, **options: object) -> KeyReloader:
        return KeyReloader(Settings(**options), self.database, self.heard.append, clock=lambda: self.now)

    def warnings(self) -> list[str]:
        return [event.message for event in self.heard if isinstance(event, OperatorWarning)]


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


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


async def test_the_first_key_is_made(bench):
    signer = await bench.reloader().open()
    assert signer.active.kid == bench.file.read().keys[0].pair.kid
    assert bench.heard == []


async def test_keys_of_the_option_are_not_kept(bench, tmp_path):
    watch = bench.reloader(signing_key=f"{FIRST.seed_hex()},{SECOND.seed_hex()}")
    signer = await watch.open()
    await watch.check()
    assert (signer.active.kid, published(signer)) == (FIRST.kid, {FIRST.kid, SECOND.kid})
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_the_option_names_is_read_and_not_made(bench, tmp_path):
    path = tmp_path / "elsewhere"
    with pytest.raises(SettingsError, match="there is no signing key"):
        await bench.reloader(signing_key=str(path)).open()
    path.write_text(FIRST.seed_hex())
    path.chmod(0o600)
    assert (await bench.reloader(signing_key=str(path)).open()).active.kid == FIRST.kid


async def test_shared_secrets_sign_too(bench):
    signer = await bench.reloader(webhook_secret=(SECRET, SECRET)).open()
    assert len(signer.macs(b"message")) == 2


async def test_a_rotation_is_noticed(bench):
    watch = bench.reloader()
    signer = await watch.open()
    first = signer.active.kid
    second = bench.file.rotate().keys[1].pair.kid
    assert published(signer) == {first}
    await watch.check()
    assert (signer.active.kid, published(signer)) == (first, {first, second})
    assert bench.heard == [KeysChanged(first)]
    bench.now += LEAD_TIME
    assert signer.active.kid == second  # by the clock, whoever looks at the file
    await watch.check()
    assert len(bench.heard) == 1


async def test_a_change_is_loaded_by_the_loop(bench, monkeypatch):
    monkeypatch.setattr(reloader, "CHECK_INTERVAL", 0.001)
    watch = bench.reloader()
    signer = await watch.open()
    changed = asyncio.Event()
    watch._emit = lambda event: changed.set()
    async with running(watch):
        new = await asyncio.to_thread(bench.file.replace_all)
        async with asyncio.timeout(5):
            await changed.wait()
    assert signer.active.kid == new.keys[0].pair.kid


async def test_stopping_does_not_wait_for_the_next_look(bench):
    watch = bench.reloader()
    await watch.open()
    async with running(watch):
        watch.stop()
        watch.stop()


async def test_a_missing_or_malformed_file_changes_nothing_and_warns_once(bench):
    watch = bench.reloader()
    signer = await watch.open()
    first, text = signer.active.kid, bench.file.path.read_text()
    bench.file.path.unlink()
    for _ in range(3):
        await watch.check()
    bench.file.path.write_text("nonsense")
    bench.file.path.chmod(0o600)
    for _ in range(3):
        await watch.check()
    assert (signer.active.kid, published(signer)) == (first, {first})
    assert [warning.rpartition("; ")[2] for warning in bench.warnings()] == ["the keys that are loaded stay in use"] * 2
    assert ["there is no signing key" in warning for warning in bench.warnings()] == [True, False]
    bench.file.path.write_text(text)
    await watch.check()
    assert len(bench.heard) == 2
    bench.file.path.unlink()
    await watch.check()
    assert len(bench.warnings()) == 3  # another time, another warning


async def test_a_file_that_was_opened_to_others_is_noticed(bench):
    watch = bench.reloader()
    await watch.open()
    bench.file.path.chmod(0o604)
    await watch.check()
    assert "other users can read or write" in bench.warnings()[0]


async def test_a_file_with_the_same_keys_emits_nothing(bench):
    watch = bench.reloader()
    await watch.open()
    bench.file.path.touch()
    await watch.check()
    assert bench.heard == []


async def test_many_looks_at_once(bench):
    watch = bench.reloader()
    signer = await watch.open()
    new = bench.file.replace_all()
    await asyncio.gather(*(watch.check() for _ in range(20)))
    assert signer.active.kid == new.keys[0].pair.kid
    assert len(bench.heard) == 1
