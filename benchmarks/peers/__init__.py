"""Other queues for Python, with the same 1 KiB job, its result stored, and every step on disk before it counts."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from benchmarks.machine import find_program

_PROGRAMS = {"redis": ("redis-server",), "postgres": ("postgres", "initdb"), "file": ()}
_DEBIAN = {"redis": "redis-server", "postgres": "postgresql"}


@dataclass(frozen=True)
class PeerSpec:
    """One peer: its module here, what it needs, and the command of its worker."""

    name: str
    module: str
    store: str
    """`redis` (append-only file, fsync always), `postgres` or `file`."""
    packages: tuple[str, ...]
    worker: tuple[str, ...]
    """Arguments of Python for the worker's process."""
    jobs: int
    """How many jobs one measurement has: enough for some seconds."""
    note: str

    @property
    def path(self) -> str:
        """The full name of its module."""
        return f"{__name__}.{self.module}"

    def missing(self) -> str | None:
        """Why it cannot be measured here."""
        packages = [package for package in self.packages if find_spec(package) is None]
        if packages:
            return f"{', '.join(packages)} is not installed: pip install -e '.[bench]'"
        programs = [program for program in _PROGRAMS[self.store] if find_program(program) is None]
        if programs:
            return f"{', '.join(programs)} is not installed: apt-get install {_DEBIAN[self.store]}"
        return None


def _own(name: str, store: str, packages: tuple[str, ...], jobs: int, note: str) -> PeerSpec:
    """A peer whose worker is started by its module."""
    module = name.lower()
    return PeerSpec(name, module, store, packages, ("-m", f"{__name__}.{module}"), jobs, note)


_HUEY = ("-m", "huey.bin.huey_consumer", f"{__name__}.huey.huey", "-w", "8", "-d", "0.002", "-m", "0.05", "-q")
_CELERY = ("-m", "celery", "-q", "-A", f"{__name__}.celery", "worker", "-P", "threads", "-c", "8", "-l", "ERROR")
_CELERY_ALONE = ("--without-gossip", "--without-mingle", "--without-heartbeat")
_DRAMATIQ = ("-m", "dramatiq", f"{__name__}.dramatiq", "--processes", "1", "--threads", "8")

PEERS = (
    _own("SAQ", "redis", ("saq", "redis"), 2000, "64 jobs at once"),
    _own("arq", "redis", ("arq", "redis"), 1000, "64 jobs at once, `poll_delay` of 2 ms instead of 0.5 s"),
    PeerSpec("huey", "huey", "file", ("huey",), _HUEY, 2000, "SQLite with fsync, 8 threads, polls every 2 to 50 ms"),
    PeerSpec("celery", "celery", "redis", ("celery", "redis"), _CELERY + _CELERY_ALONE, 1000, "8 threads, late acknowledgment"),
    PeerSpec("dramatiq", "dramatiq", "redis", ("dramatiq", "redis"), _DRAMATIQ, 2000, "8 threads"),
    _own("procrastinate", "postgres", ("procrastinate", "psycopg_pool"), 500, "64 jobs at once; the job stores its result"),
    _own("pgqueuer", "postgres", ("pgqueuer", "asyncpg"), 1000, "batches of 64; the job stores its result"),
)
