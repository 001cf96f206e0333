"""Which release this is, and how it names itself to those whom it calls."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("queue-middleware")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0"


VERSION = _installed()
USER_AGENT = f"queue-middleware/{VERSION}"
