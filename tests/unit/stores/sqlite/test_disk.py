from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from queue_middleware.errors import StoreError
from queue_middleware.stores.sqlite.disk import low_space_reason, mount_of, refuse_network_filesystem
from queue_middleware.stores.sqlite.location import database_path

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
    assert mount_of(Path(path), MOUNTS)[1] == kind


@pytest.mark.parametrize("folder", ["/srv/nfs", "/mnt/with space", "/work", "/home/me/remote"])
def test_network_file_systems_are_refused(folder: str) -> None:
    with pytest.raises(StoreError, match="allow_network_filesystem"):
        refuse_network_filesystem(Path(folder) / "queue.sqlite3", MOUNTS)


@pytest.mark.parametrize("folder", ["/", "/srv/nfs/local", "/var/lib/docker"])
def test_local_file_systems_are_accepted(folder: str) -> None:
    refuse_network_filesystem(Path(folder) / "queue.sqlite3", MOUNTS)
    refuse_network_filesystem(Path(folder) / "queue.sqlite3", "")


@pytest.mark.parametrize(
    "kind",
    [
        *("nfs", "cifs", "fakeowner", "beegfs", "gpfs", "ocfs2", "gfs2", "virtiofs", "9p", "vboxsf", "lustre"),
        *("fuse", "fuse.sshfs", "fuse.mount-s3", "fuse.juicefs", "fuse.ceph-fuse", "fuse.blobfuse2", "fuse.portal"),
        *("fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.glusterfs", "fuse.never-heard-of", "fuse.osxfs"),
    ],
)
def test_unknown_fuse_file_systems_are_refused(kind: str) -> None:
    with pytest.raises(StoreError, match=f"is on {kind}, which (is|may be) a network file system"):
        refuse_network_filesystem(Path("/srv/data/queue.sqlite3"), f"/dev/vda / ext4 rw 0 0\nx /srv/data {kind} rw 0 0\n")


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "fuseblk", "fuse.ext4", "fuse.fuse-overlayfs"]
)
def test_known_local_fuse_file_systems_are_accepted(kind: str) -> None:
    refuse_network_filesystem(Path("/srv/data/queue.sqlite3"), f"/dev/vda / ext4 rw 0 0\nx /srv/data {kind} rw 0 0\n")


def test_a_link_does_not_hide_a_network_file_system(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real = (tmp_path / "real").resolve()
    with pytest.raises(StoreError, match="nfs4"):
        refuse_network_filesystem(
            database_path(str(tmp_path / "link" / "q")), f"/dev/vda / ext4 rw 0 0\ns:/x {real} nfs4 rw 0 0"
        )


def test_a_file_that_is_mounted_by_itself_is_refused() -> None:
    """Docker's `-v ./queue.sqlite3:/app/queue.sqlite3`: the write-ahead log would be in the container's own layer."""
    mounts = "overlay / overlay rw 0 0\n/dev/vda /app/queue.sqlite3 ext4 rw 0 0\n"
    with pytest.raises(StoreError, match="mount the folder /app instead"):
        refuse_network_filesystem(Path("/app/queue.sqlite3"), mounts)
    refuse_network_filesystem(Path("/app/other.sqlite3"), mounts)


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
def test_the_free_space_that_is_required(
    monkeypatch: pytest.MonkeyPatch, total: int, free: int, least: int | None, enough: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, total - free, free))
    complaint = low_space_reason(Path("/var/queue.sqlite3"), least)
    assert (complaint is None) == enough
    if complaint:
        assert f"{free // MIB} MiB" in complaint


@pytest.mark.parametrize(
    ("free", "spare", "least", "enough"),
    [
        (100 * MIB, 412 * MIB, None, True),
        (100 * MIB, 411 * MIB, None, False),
        (63 * MIB, 100 * GIB, None, False),  # the write-ahead log needs space on the disk
        (20 * MIB, 0, 20 * MIB, True),
    ],
)
def test_free_pages_in_the_file_count(
    monkeypatch: pytest.MonkeyPatch, free: int, spare: int, least: int | None, enough: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 * GIB, 10 * GIB - free, free))
    assert (low_space_reason(Path("/var/queue.sqlite3"), least, spare) is None) == enough
