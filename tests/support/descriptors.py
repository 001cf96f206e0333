"""The file descriptors of this process: those of a folder, and none left."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def no_files_left() -> Iterator[None]:
    """Inside the block, no file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    held = []
    try:
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        yield
    finally:
        for file in held:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files(folder: Path) -> list[str]:
    """The paths of `folder` that this process has open, one for each descriptor.

    Descriptors elsewhere are not counted: a garbage collection may close those of earlier tests at any moment.
    """
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of this listing
            paths.append(str(descriptor.readlink()))
    return sorted(path for path in paths if path.startswith(f"{folder}/"))
