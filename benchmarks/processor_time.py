"""CPU time of processes, by thread. Only on Linux, from `/proc`; elsewhere the figures are left out of the report."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessorTime:
    """Seconds of CPU, user and system, since the processes began."""

    main: float = 0.0
    """CPU of the main threads, which run the event loops."""
    others: float = 0.0
    """CPU of all other threads; in a queue, that is nearly only the thread that writes to the database."""

    @property
    def total(self) -> float:
        return self.main + self.others

    def __sub__(self, before: ProcessorTime) -> ProcessorTime:
        return ProcessorTime(self.main - before.main, self.others - before.others)

    def per(self, count: int) -> dict[str, float]:
        """The metrics of a measurement of `count` requests or jobs: microseconds each."""
        if not self.total:
            return {}
        micro = 1e6 / count
        return {"cpu": self.total * micro, "cpu main thread": self.main * micro, "cpu other threads": self.others * micro}


def is_counted() -> bool:
    """Whether this system has the figures."""
    return Path("/proc/self/stat").exists()


def processor_time(pids: Iterable[int]) -> ProcessorTime:
    """CPU time of these processes so far; zero where the system has no `/proc`."""
    main = others = 0.0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("[0-9]*"):
            seconds = _seconds(thread)
            if thread.name == str(pid):
                main += seconds
            else:
                others += seconds
    return ProcessorTime(main, others)


def with_descendants(pids: Iterable[int]) -> list[int]:
    """These processes, and those that they have started."""
    found = []
    for pid in pids:
        found.append(pid)
        children = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
        found += with_descendants(int(child) for group in children for child in group)
    return found


def resident_bytes(pid: int) -> int:
    """Memory of a process in RAM; zero where the system has no `/proc`."""
    try:
        pages = (Path("/proc") / str(pid) / "statm").read_text().split()[1]
    except FileNotFoundError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _seconds(thread: Path) -> float:
    """Nanoseconds of the scheduler if the kernel counts them, otherwise clock ticks (10 ms)."""
    try:
        return int((thread / "schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        pass
    try:
        after_the_name = (thread / "stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:  # the thread has ended
        return 0.0
    return (int(after_the_name[11]) + int(after_the_name[12])) / os.sysconf("SC_CLK_TCK")
