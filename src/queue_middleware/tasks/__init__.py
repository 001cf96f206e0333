"""Tasks: jobs that an external service finishes by a callback, a signal, or a response to a poll.

May import: `webhooks`, `events`, `asgi`, `outbound`, `jobs` and what lies below them.
Begin with `models` and `wait` (when a job keeps waiting), then `callbacks` and `polling`.
"""
