"""Checks the file system of the database: its type and its free space."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from queue_middleware.errors import StoreError

from .sql import SQLiteQueries

_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "afpfs", "coda", "ncpfs", "davfs", "webdav"),
        *("ceph", "glusterfs", "lustre", "beegfs", "fhgfs", "gpfs", "orangefs", "pvfs2", "panfs", "cvfs"),
        *("ocfs2", "gfs", "gfs2", "acfs"),
        *("9p", "virtiofs", "fakeowner", "grpcfuse", "osxfs", "drvfs", "vboxsf", "vmhgfs", "prl_fs", "prl_fs_freeze", "shfs"),
    }
)
"""File systems that several kernels can use at once, by line: served by another machine, distributed, on a disk of several
machines, shared with a virtual machine. These kernels do not know each other's locks."""
_LOCAL_FUSE = frozenset(
    {
        *("fuseblk", "fuse.ext2", "fuse.ext3", "fuse.ext4", "fuse.fuse-ext2", "fuse.fuse2fs", "fuse.exfat", "fuse.ntfs"),
        *("fuse.ntfs-3g", "fuse.zfs-fuse", "fuse.fuse-overlayfs", "fuse.encfs", "fuse.gocryptfs"),
    }
)
"""FUSE file systems that are known to be local. All others are refused, because there are too many to list."""
_OCTAL = re.compile(r"\\([0-7]{3})")
"""The escapes in the mount table for blanks, tabs, line ends, backslashes and number signs."""
_MIN_RESERVED = 256 * 2**20
_MAX_RESERVED = 2 * 2**30
_WAL_BYTES = 64 * 2**20
"""Bytes of disk that the write-ahead log needs, even if the file has free pages."""


def refuse_network_filesystem(database: Path, mounts: str) -> None:
    """Raise `StoreError` if the database is on a file system where SQLite's locks do not work.

    `database` is a real path; `mounts` is the text of /proc/mounts.
    """
    point, kind = mount_of(database, mounts)
    if kind in _NETWORK or (kind.startswith("fuse") and kind not in _LOCAL_FUSE):
        raise StoreError(
            f"{database} is on {kind}, which {'is' if kind in _NETWORK else 'may be'} a network file system: SQLite's file "
            "locks do not hold there and the database would be corrupted; put it on a local disk, or set "
            "allow_network_filesystem=True if you know better"
        )
    if point == str(database):
        raise StoreError(
            f"{database} is a mount of one file: its write-ahead log would lie outside of the mount and be lost with the "
            f"container; mount the folder {database.parent} instead"
        )


def mount_of(path: Path, mounts: str) -> tuple[str, str]:
    """The mount point and the type of the file system of `path`; empty texts if the table does not list it."""
    longest, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[1])
        # The later of two equal mount points hides the earlier.
        if path.is_relative_to(point) and len(point) >= len(longest):
            longest, kind = point, fields[2]
    return longest, kind


def mount_table() -> str:
    """The text of /proc/mounts; empty on systems without it."""
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def low_space_reason(database: Path, min_free: int | None, spare: int = 0) -> str | None:
    """Why there is too little space to accept more jobs; None if there is enough. `spare`: bytes of free pages in the file."""
    usage = shutil.disk_usage(database.parent)
    required = required_space(usage.total, min_free)
    if usage.free + spare >= required and usage.free >= min(required, _WAL_BYTES):
        return None
    free, reserved = usage.free // 2**20, required // 2**20
    return f"only {free} MiB of disk are free and {reserved} MiB are reserved for work that is already accepted"


def required_space(total: int, min_free: int | None) -> int:
    """Bytes of free disk below which no more jobs are accepted. `total`: bytes of the disk."""
    return min_free if min_free is not None else min(max(total // 20, _MIN_RESERVED), _MAX_RESERVED)


def free_bytes(queries: SQLiteQueries) -> int:
    """Bytes of free pages in the file. They are used before the file grows."""
    (pages,) = queries.connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = queries.connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(size)
