"""The clocks of a store, in milliseconds. All processes on one file share a machine, and so its clocks."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

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
    """Eight characters that are another after each boot, `""` where the system does not tell. Blocking."""
    try:
        return _BOOT_ID.read_text(encoding="ascii")[:8]
    except OSError:
        return _session_of_macos()[:8].lower()


def _session_of_macos() -> str:
    try:
        system = ctypes.CDLL(None)
        length = ctypes.c_size_t(64)
        found = ctypes.create_string_buffer(length.value)
        if system.sysctlbyname(b"kern.bootsessionuuid", found, ctypes.byref(length), None, ctypes.c_size_t(0)) == 0:
            return found.value.decode("ascii")
    except (OSError, AttributeError, UnicodeError):
        pass
    return ""
