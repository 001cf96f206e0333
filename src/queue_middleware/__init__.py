"""`app = QueueMiddleware(app)`: a durable queue with signed webhooks for any ASGI application."""

from .jobcontext import current_job
from .middleware import QueueMiddleware
from .settings import Settings

__all__ = ["QueueMiddleware", "Settings", "current_job"]
