"""The clocks of a store, in milliseconds. All processes on a file run on one machine and so share its clocks."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

from queue_middleware.stores.common.wall_clock import WallClock

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that continues while the machine is suspended. On macOS, which has no CLOCK_BOOTTIME, CLOCK_MONOTONIC does."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def system_clock() -> int:
    """Milliseconds since 1970, for schedules, deadlines and displayed times. This clock can be set."""
    return time.time_ns() // 1_000_000


def boot_clock() -> int:
    """Milliseconds since the boot of the machine, for leases. This clock cannot be set."""
    return time.clock_gettime_ns(_BOOT) // 1_000_000


def boot_id() -> str:
    """Eight characters that change with each boot; `""` if the system has no boot id. Blocking."""
    try:
        return _BOOT_ID.read_text(encoding="ascii")[:8]
    except OSError:
        return _macos_boot_id()[:8].lower()


def _macos_boot_id() -> str:
    try:
        system = ctypes.CDLL(None)
        length = ctypes.c_size_t(64)
        buffer = ctypes.create_string_buffer(length.value)
        if system.sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(length), None, ctypes.c_size_t(0)) == 0:
            return buffer.value.decode("ascii")
    except (OSError, AttributeError, UnicodeError):
        pass
    return ""


class Clocks:
    """The clocks of one store: `wall` for schedules, deadlines and ids, `boot` for leases. Tests pass their own."""

    def __init__(self, wall: Callable[[], int] | None, boot: Callable[[], int] | None) -> None:
        # A wall clock that a test passes without a boot clock is compared with itself.
        self._steady = boot or wall or boot_clock
        self.wall = wall or system_clock
        self.boot = boot or boot_clock
        self._wall_clock = WallClock.begin(self.wall(), self._steady())

    def trusted_now(self, retention: int) -> int:
        """The time since 1970 that `WallClock` trusts for this retention."""
        steady = self._steady()
        self._wall_clock = self._wall_clock.update(self.wall(), steady, retention)
        return self._wall_clock.now(steady)
