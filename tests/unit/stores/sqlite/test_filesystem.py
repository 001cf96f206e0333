from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from queue_middleware.errors import StoreError
from queue_middleware.stores.sqlite.filesystem import filesystem_of, lacks_room, refuse_network_filesystem

MOUNTS = r"""
/dev/vda / ext4 rw 0 0
server:/export /srv/nfs nfs4 rw 0 0
//nas/share /mnt/with\040space cifs rw 0 0
tmpfs /srv/nfs/local tmpfs rw 0 0
host0 /work virtiofs rw 0 0
ssh /home/me/remote fuse.sshfs rw 0 0
over /var/lib/docker fuse.fuse-overlayfs rw 0 0
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/queue.sqlite3", "ext4"),
        ("/srv/nfs/queue.sqlite3", "nfs4"),
        ("/srv/nfsother/queue.sqlite3", "ext4"),
        ("/srv/nfs/local/queue.sqlite3", "tmpfs"),
        ("/mnt/with space/queue.sqlite3", "cifs"),
        ("/work/queue.sqlite3", "virtiofs"),
    ],
)
def test_the_kind_of_file_system(path: str, kind: str) -> None:
    assert filesystem_of(Path(path), MOUNTS) == kind


@pytest.mark.parametrize("folder", ["/srv/nfs", "/mnt/with space", "/work", "/home/me/remote"])
def test_network_file_systems_are_refused(folder: str) -> None:
    with pytest.raises(StoreError, match="allow_network_filesystem"):
        refuse_network_filesystem(Path(folder) / "queue.sqlite3", MOUNTS)


@pytest.mark.parametrize("folder", ["/", "/srv/nfs/local", "/var/lib/docker"])
def test_local_ones_are_not(folder: str) -> None:
    refuse_network_filesystem(Path(folder) / "queue.sqlite3", MOUNTS)
    refuse_network_filesystem(Path(folder) / "queue.sqlite3", "")


Usage = namedtuple("Usage", "total used free")
MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("total", "free", "least", "enough"),
    [
        (10 * GIB, 512 * MIB, None, True),
        (10 * GIB, 511 * MIB, None, False),
        (1 * GIB, 256 * MIB, None, True),
        (1 * GIB, 255 * MIB, None, False),
        (10_000 * GIB, 2 * GIB, None, True),
        (10_000 * GIB, 2 * GIB - MIB, None, False),
        (10 * GIB, 0, 0, True),
        (10 * GIB, 5 * GIB, 6 * GIB, False),
    ],
)
def test_room(monkeypatch: pytest.MonkeyPatch, total: int, free: int, least: int | None, enough: bool) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, total - free, free))
    complaint = lacks_room(Path("/var/queue.sqlite3"), least)
    assert (complaint is None) == enough
    if complaint:
        assert f"{free // MIB} MiB" in complaint


@pytest.mark.parametrize(
    ("free", "spare", "least", "enough"),
    [
        (100 * MIB, 412 * MIB, None, True),
        (100 * MIB, 411 * MIB, None, False),
        (63 * MIB, 100 * GIB, None, False),  # the write-ahead log needs a place on the disk
        (20 * MIB, 0, 20 * MIB, True),
    ],
)
def test_room_within_the_file_counts(
    monkeypatch: pytest.MonkeyPatch, free: int, spare: int, least: int | None, enough: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 * GIB, 10 * GIB - free, free))
    assert (lacks_room(Path("/var/queue.sqlite3"), least, spare) is None) == enough
