"""Databases in test runs: while pytest runs, a queue that would use a file of the project gets a fresh file instead.

The plugin in `testing` sets an environment variable, so that the same applies to server processes that a test starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

VARIABLE = "QUEUE_TESTS"
REAL = "QUEUE_TESTS_USE_REAL_DATABASE"
"""Set to 1, it disables the plugin."""
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - only compared with


@dataclass(frozen=True)
class Isolation:
    """Which database files are replaced, and where the new ones are. All folders are absolute real paths."""

    folder: str
    """Folder of the new files; it is removed at the end."""
    project: tuple[str, ...]
    """Folders whose files, at any depth, belong to the project."""
    here: str
    """The folder in which pytest was started; files directly in it belong to the project as well."""
    kept: tuple[str, ...]
    """Folders of temporary files, which are not replaced: `tmp_path` and `tempfile`."""
    _made: Counter[str] = field(default_factory=Counter, repr=False, compare=False)

    @classmethod
    def of(cls, folder: Path, *, root: Path, here: Path, basetemp: Path | None) -> Self:
        """For a pytest run in the project `root`, started in the folder `here`, possibly with `--basetemp`."""
        temporary = sorted({str(Path(path).resolve()) for path in (tempfile.gettempdir(), *_TEMPORARY)})
        # A folder that contains all temporary files, such as `/`, does not identify files of the project.
        project = [str(path) for path in (root, here) if not any(_is_below(place, str(path)) for place in temporary)]
        kept = [] if basetemp is None else [str(basetemp.resolve())]
        return cls(str(folder.resolve()), tuple(dict.fromkeys(project)), str(here), (*kept, *temporary))

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse the value of the variable."""
        known = json.loads(text)
        return cls(known["folder"], tuple(known["project"]), known["here"], tuple(known["kept"]))

    def written(self) -> str:
        """The value of the variable."""
        return json.dumps({"folder": self.folder, "project": self.project, "here": self.here, "kept": self.kept})

    def place(self, database: Path, name: str) -> Path:
        """The file for a queue of the application `name` that would use `database`.

        Each queue of a process gets a fresh file; the first, second … queues of several processes share one file each.
        """
        if not self._replaces(str(database)):
            return database
        identity = hashlib.sha256(f"{name}\0{database}".encode()).hexdigest()[:12]
        self._made[identity] += 1
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:40]
        return Path(self.folder) / f"{plain}-{identity}-{self._made[identity]}.sqlite3"

    def _replaces(self, database: str) -> bool:
        """Whether the file is replaced.

        The innermost known folder decides, because a project may be in a temporary folder, and may contain one.
        """
        if database.rpartition("/")[0] == self.here:
            return True
        project = max((len(path) for path in self.project if _is_below(database, path)), default=0)
        kept = max((len(path) for path in self.kept if _is_below(database, path)), default=0)
        return project >= kept  # also outside all known folders: then it is a file of the machine


def isolation(environ: Mapping[str, str] | None = None) -> Isolation | None:
    """The replacement of databases that applies in this process; None outside a test run."""
    text = (os.environ if environ is None else environ).get(VARIABLE, "")
    return _isolation(text) if text else None


_isolation = cache(Isolation.read)  # one for all queues of a process: it counts them


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
