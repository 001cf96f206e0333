"""The clocks of a store, in milliseconds. All processes on one file run on one machine and share its clocks."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

from queue_middleware.stores.common.wall_clock import WallClock

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It goes on while the machine is suspended; macOS has no CLOCK_BOOTTIME, there the monotonic clock does."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def system_clock() -> int:
    """Milliseconds since 1970: for schedules, deadlines and what people read. It may be set."""
    return time.time_ns() // 1_000_000


def boot_clock() -> int:
    """Milliseconds since the machine was booted: for leases. It cannot be set."""
    return time.clock_gettime_ns(_BOOT) // 1_000_000


def boot_id() -> str:
    """Eight characters that differ after each boot; `""` if the system does not provide them. Blocking."""
    try:
        return _BOOT_ID.read_text(encoding="ascii")[:8]
    except OSError:
        return _macos_boot_id()[:8].lower()


def _macos_boot_id() -> str:
    try:
        system = ctypes.CDLL(None)
        length = ctypes.c_size_t(64)
        found = ctypes.create_string_buffer(length.value)
        if system.sysctlbyname(b"kern.bootsessionuuid", found, ctypes.byref(length), None, ctypes.c_size_t(0)) == 0:
            return found.value.decode("ascii")
    except (OSError, AttributeError, UnicodeError):
        pass
    return ""


class Clocks:
    """Those of one store. `wall` decides schedules, deadlines and ids, `boot` leases. Tests hand in their own."""

    def __init__(self, wall: Callable[[], int] | None, boot: Callable[[], int] | None) -> None:
        # A wall clock that is handed in alone has no other of its kind to be compared with.
        self._steady = boot or wall or boot_clock
        self.wall = wall or system_clock
        self.boot = boot or boot_clock
        self._wall_clock = WallClock.begin(self.wall(), self._steady())

    def trusted_now(self, retention: int) -> int:
        """The time since 1970 that retention believes in: see `WallClock`."""
        steady = self._steady()
        self._wall_clock = self._wall_clock.update(self.wall(), steady, retention)
        return self._wall_clock.now(steady)
