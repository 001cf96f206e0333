"""`app = QueueMiddleware(app)`: a durable queue with signed webhooks for any ASGI application."""

__all__: list[str] = []
