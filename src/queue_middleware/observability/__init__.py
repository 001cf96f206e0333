"""Observers of events, and instrumentations. Each turns the values of the queue into records of another system.

May import: `events`, `instrumentation` and what lies below them; never `webhooks`, its sibling.
Begin with `emitter`, which calls the observers, then `event_log`, which writes log records, and `instrumentation`.
"""
