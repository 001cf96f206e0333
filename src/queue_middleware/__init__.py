"""`app = QueueMiddleware(app)`: a durable queue with signed webhooks for any ASGI application."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .middleware import QueueMiddleware
    from .settings import Settings
    from .web.admin_access import Admin
    from .worker.job_context import current_job

__all__ = ["Admin", "QueueMiddleware", "Settings", "current_job"]

_MODULES = {
    "Admin": "web.admin_access",
    "QueueMiddleware": "middleware",
    "Settings": "settings",
    "current_job": "worker.job_context",
}


def __getattr__(name: str) -> object:
    """Import public names on first access: pytest loads the plugin in every run, and needs nothing else."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value
