"""A FastAPI service with a queue, a receiver for its webhooks, and a demo of both."""
