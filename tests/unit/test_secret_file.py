import os
import stat
import threading
from pathlib import Path

import pytest

from queue_middleware.errors import SettingsError
from queue_middleware.secret_file import read_or_create


def test_it_is_created_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert read_or_create(path, lambda: "first\n") == "first"
    assert read_or_create(path, lambda: "second\n") == "first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    path, read, gate = tmp_path / "secret", [], threading.Barrier(8)

    def start(number: int) -> None:
        gate.wait()
        read.append(read_or_create(path, lambda: str(number)))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(read)) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_other_users_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_text("text")
    path.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 600") as refusal:
        read_or_create(path, lambda: "")
    assert "text" not in str(refusal.value)


def test_a_path_that_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "secret"
    directory.mkdir()
    with pytest.raises(SettingsError, match="cannot use the secret"):
        read_or_create(directory, lambda: "")
    device = tmp_path / "device"
    device.symlink_to("/dev/null")
    with pytest.raises(SettingsError, match="is not a regular file"):
        read_or_create(device, lambda: "")


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_or_create(tmp_path / "nowhere" / "secret", lambda: "")


def test_a_new_secret_survives_a_power_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced before the file has its name, and then the directory."""
    synced, fsync = [], os.fsync

    def record(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file", (tmp_path / "secret").exists()))

    monkeypatch.setattr(os, "fsync", record)
    read_or_create(tmp_path / "secret", lambda: "text")
    assert synced == [("file", False), ("directory", True)]
