"""The installed version, and the `User-Agent` of outgoing requests."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed_version() -> str:
    try:
        return version("queue-middleware")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"


VERSION = _installed_version()
USER_AGENT = f"queue-middleware/{VERSION}"
