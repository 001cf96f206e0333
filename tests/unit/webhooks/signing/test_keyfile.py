import fcntl
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from queue_middleware.errors import RotationRefused, SettingsError
from queue_middleware.webhooks.signing.keyfile import KeyFile, keys_of_option, path_of_keys
from queue_middleware.webhooks.signing.keyring import LEAD_TIME, KeyRing, KeyStatus
from queue_middleware.webhooks.signing.keys import KeyPair
from tests.support.clock import Seconds

NOW = 1_800_000_000.0
FIRST = KeyPair(bytes(32))


@pytest.fixture
def clock() -> Seconds:
    return Seconds(NOW)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path, clock, warnings) -> KeyFile:
    """A file with `FIRST`, as releases before rotation wrote it: only a seed."""
    path = tmp_path / "queue.sqlite3.key"
    path.write_text(f"{FIRST.seed_hex()}\n")
    path.chmod(0o600)
    return KeyFile(path, clock=clock, warn=warnings.append)


def kids(ring: KeyRing) -> list[str]:
    return [key.pair.kid for key in ring.keys]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- where the keys are


def test_the_option_holds_keys_or_names_their_file():
    database = Path("/srv/queue.sqlite3")
    assert kids(keys_of_option(FIRST.seed_hex())) == [FIRST.kid]
    assert keys_of_option("/run/secrets/signing-key") is None
    assert keys_of_option(None) is None
    assert path_of_keys("/run/secrets/signing-key", database) == Path("/run/secrets/signing-key")
    assert path_of_keys(None, database) == Path("/srv/queue.sqlite3.key")


@pytest.mark.parametrize("text", [" ", "abc", "run/secrets/signing-key", "~/key"])
def test_a_malformed_option_is_refused(text):
    with pytest.raises(SettingsError, match=r"^signing_key: "):
        keys_of_option(text)


# --- creating the first


def test_a_key_is_created_once_and_private(tmp_path):
    file = KeyFile(tmp_path / "queue.sqlite3.key")
    file.create()
    made = file.path.read_bytes()
    assert mode(file.path) == 0o600
    file.create()
    assert (file.path.read_bytes(), len(file.read().keys)) == (made, 1)
    assert names(tmp_path) == ["queue.sqlite3.key"]


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    # Threads stand for processes: the file system decides, and each has its own draft.
    def start(_: int) -> str:
        file = KeyFile(tmp_path / "key")
        file.create()
        return kids(file.read())[0]

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(start, range(64)))) == 1
    assert names(tmp_path) == ["key"]


def test_reading_creates_no_key(tmp_path):
    with pytest.raises(SettingsError, match=r"there is no signing key .*; make one with: queue-middleware keys rotate"):
        KeyFile(tmp_path / "key").read()
    assert names(tmp_path) == []


# --- reading


def test_a_file_of_one_seed_is_a_ring(file):
    ring = file.read()
    assert kids(ring) == [FIRST.kid]
    assert ring.active(0.0).kid == FIRST.kid


@pytest.mark.parametrize("bits", [0o604, 0o602, 0o601, 0o644, 0o666, 0o777])
def test_a_key_that_others_may_read_is_refused(file, bits):
    file.path.chmod(bits)
    with pytest.raises(SettingsError, match=f"chmod 600 {file.path}"):
        file.read()
    assert mode(file.path) == bits


@pytest.fixture
def owned_by_the_service(monkeypatch, file) -> int:
    """The reading user is not root and owns the file, whichever user runs the tests."""
    user = os.geteuid() or 4711
    if os.geteuid() == 0:
        os.chown(file.path, user, -1)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    return user


@pytest.mark.parametrize("bits", [0o640, 0o660, 0o620, 0o440])
def test_an_owned_file_is_closed_to_its_group_with_a_warning(file, warnings, owned_by_the_service, bits):
    """Kubernetes opens all files of a volume to the group of `fsGroup` when a pod starts."""
    file.path.chmod(bits)
    assert kids(file.read()) == [FIRST.kid]
    assert mode(file.path) == 0o600
    assert len(warnings) == 1
    assert "queue-middleware keys rotate --compromised" in warnings[0]
    file.read()
    assert len(warnings) == 1


def test_on_a_read_only_file_system_the_mode_stays(file, warnings, owned_by_the_service, monkeypatch):
    def refuse(descriptor: int, mode: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fchmod", refuse)
    file.path.chmod(0o440)
    assert kids(file.read()) == [FIRST.kid]
    assert warnings == []


@pytest.mark.parametrize("bits", [0o640, 0o660, 0o440])
def test_a_file_of_another_user_may_be_readable_by_its_group(file, warnings, monkeypatch, bits):
    """Root owns a secret that Kubernetes mounts; the service reads it by `fsGroup`."""
    file.path.chmod(bits)
    monkeypatch.setattr(os, "geteuid", lambda: file.path.stat().st_uid + 1)
    assert kids(file.read()) == [FIRST.kid]
    assert (mode(file.path), warnings) == (bits, [])


def test_root_does_not_close_a_file_to_its_group(file, warnings, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root can try what root does")
    file.path.chmod(0o640)
    file.read()
    assert (mode(file.path), warnings) == (0o640, [])


@pytest.mark.parametrize("content", [b"\xff not a key", b"", b"\0" * 64, b"x" * 100_000])
def test_a_file_without_a_valid_key_is_refused_with_its_name(file, content):
    file.path.write_bytes(content)
    with pytest.raises(SettingsError, match=str(file.path)):
        file.read()


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="Is a directory"):
        KeyFile(tmp_path).read()


def test_a_missing_directory_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="No such file or directory"):
        KeyFile(tmp_path / "nowhere" / "key").create()


# --- versions


def test_the_version_changes_with_the_file(file, tmp_path):
    marks = [file.version()]
    assert file.version() == marks[0]
    file.rotate()
    marks.append(file.version())
    file.path.chmod(0o400)
    marks.append(file.version())
    file.path.unlink()
    marks.append(file.version())
    assert len(set(marks)) == len(marks)
    assert marks[-1] is None


def test_a_mounted_secret_is_seen_to_change(tmp_path):
    """Kubernetes puts a new folder beside the old one and turns a symbolic link."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(FIRST.seed_hex())
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "key").symlink_to("..data/key")
    file = KeyFile(tmp_path / "key")
    before = file.version()
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(tmp_path / "..data")
    assert file.version() != before


# --- rotating


def test_a_rotation_is_written_to_the_file(file, clock):
    ring = file.rotate()
    again = KeyFile(file.path).read()
    assert kids(again) == kids(ring)
    assert kids(ring)[0] == FIRST.kid
    assert [again.status(key, NOW) for key in again.keys] == [KeyStatus.ACTIVE, KeyStatus.NEXT]
    assert again.keys[1].since == NOW + LEAD_TIME
    assert mode(file.path) == 0o600
    assert names(file.path.parent) == ["queue.sqlite3.key"]


def test_the_notice_can_be_longer(file):
    assert file.rotate(lead_time=7 * 86400.0).keys[1].since == NOW + 7 * 86400


def test_a_second_rotation_waits_for_the_first(file, clock):
    file.rotate()
    before = file.path.read_bytes()
    with pytest.raises(RotationRefused, match="a rotation is in progress"):
        file.rotate()
    assert file.path.read_bytes() == before
    clock.now += LEAD_TIME
    assert len(file.rotate().keys) == 3


def test_retired_keys_are_erased(file, clock):
    file.rotate()
    clock.now += LEAD_TIME + 48 * 3600
    file.rotate()
    assert FIRST.seed_hex() not in file.path.read_text()


def test_after_a_leak_everything_is_new_at_once(file, clock):
    file.rotate()
    file.path.chmod(0o644)  # perhaps the cause of the leak
    ring = file.replace_all()
    assert len(ring.keys) == 1
    assert ring.active(NOW).kid != FIRST.kid
    assert kids(file.read()) == kids(ring)
    assert FIRST.seed_hex() not in file.path.read_text()


@pytest.mark.parametrize("rotate", [KeyFile.rotate, KeyFile.replace_all])
def test_without_a_file_the_first_key_signs_at_once(tmp_path, rotate):
    file = KeyFile(tmp_path / "key")
    ring = rotate(file)
    assert [ring.status(key, 0.0) for key in ring.keys] == [KeyStatus.ACTIVE]
    assert kids(file.read()) == kids(ring)


def test_rotations_at_the_same_time_leave_one_new_key(file):
    def rotate(_: int) -> str:
        try:
            return str(len(KeyFile(file.path, clock=lambda: NOW).rotate().keys))
        except RotationRefused as error:
            return error.detail[:22]

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(rotate, range(24)))
    assert sorted(set(outcomes)) == ["2", "a rotation is in progr"]
    assert outcomes.count("2") == 1
    assert len(file.read().keys) == 2


def test_readers_see_whole_files_during_rotations(file):
    stop = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(len(KeyFile(file.path).read().keys))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for _ in range(50):
            file.replace_all()
            file.rotate()
        stop.set()
        for reader in readers:
            reader.result()
    assert set(seen) <= {1, 2}


def test_rotations_take_turns(file):
    folder = os.open(file.path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            rotating = pool.submit(file.rotate)
            with pytest.raises(TimeoutError):
                rotating.result(timeout=0.05)
            assert kids(file.read()) == [FIRST.kid]
            fcntl.flock(folder, fcntl.LOCK_UN)
            assert len(rotating.result(timeout=10).keys) == 2
    finally:
        os.close(folder)


def test_a_symbolic_link_is_kept(file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(file.path)
    KeyFile(link, clock=lambda: NOW).rotate()
    assert link.is_symlink()
    assert len(file.read().keys) == 2


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o660])
def test_the_service_can_read_the_file_whichever_user_rotates(file, bits):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(file.path, 4711, 4712)
    file.path.chmod(bits)
    file.rotate()
    found = file.path.stat()
    assert (found.st_uid, found.st_gid, mode(file.path)) == (4711, 4712, bits & 0o640)


def test_a_read_only_directory_is_refused_and_nothing_is_left(file, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RotationRefused, match=f"cannot replace the signing key {file.path}: Read-only file system"):
        file.rotate()
    assert names(file.path.parent) == ["queue.sqlite3.key"]
    assert kids(file.read()) == [FIRST.kid]


def test_a_full_disk_leaves_no_part_of_a_key(file, monkeypatch):
    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RotationRefused, match="No space left on device"):
        file.rotate()
    assert names(file.path.parent) == ["queue.sqlite3.key"]


def test_a_malformed_file_is_not_replaced(file):
    file.path.write_text("nonsense")
    with pytest.raises(RotationRefused, match="64 hex digits"):
        file.rotate()
    assert file.path.read_text() == "nonsense"
    with pytest.raises(RotationRefused, match="No such file"):
        KeyFile(file.path.parent / "nowhere" / "key").rotate()
