"""What the file system under the database allows: its kind, and how much room is left."""

from __future__ import annotations

import shutil
from pathlib import Path

from queue_middleware.errors import StoreError

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "glusterfs", "afs", "lustre", "vboxsf", "prl_fs"}
)
_NETWORK_FUSE = ("sshfs", "s3fs", "gcsfuse", "glusterfs", "rclone", "osxfs", "grpcfuse")
_LEAST_FREE = 256 * 2**20
_MOST_FREE = 2 * 2**30
_LOG = 64 * 2**20
"""Bytes of disk that are needed however much room there is in the file: the write-ahead log grows to this."""


def refuse_network_filesystem(database: Path, mounts: str) -> None:
    """Raise `StoreError` when the database would lie where SQLite's locks do not hold. `mounts` is the text of /proc/mounts."""
    kind = filesystem_of(database, mounts)
    if kind in _NETWORK or (kind.startswith("fuse") and any(name in kind for name in _NETWORK_FUSE)):
        raise StoreError(
            f"{database} is on {kind}, where SQLite's file locks do not hold and the database would be corrupted; "
            "put it on a local disk, or set allow_network_filesystem=True if you know better"
        )


def filesystem_of(path: Path, mounts: str) -> str:
    """The type of the file system that `path` lies on, `""` when the table does not tell."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        # The later of two equal mount points hides the earlier.
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), fields[2]
    return kind


def mount_table() -> str:
    """/proc/mounts, or nothing where there is none."""
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def lacks_room(database: Path, least: int | None, spare: int = 0) -> str | None:
    """A sentence when there is too little room to accept more work, else None. `spare`: bytes that are free in the file."""
    usage = shutil.disk_usage(database.parent)
    floor = least if least is not None else min(max(usage.total // 20, _LEAST_FREE), _MOST_FREE)
    if usage.free + spare >= floor and usage.free >= min(floor, _LOG):
        return None
    return f"only {usage.free // 2**20} MiB of disk are free and {floor // 2**20} MiB are kept for the work already accepted"
