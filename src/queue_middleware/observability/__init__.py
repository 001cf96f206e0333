"""Observers of events. Each turns the values of `events` into records of another system.

May import: `events` and what lies below it; never `webhooks`, its sibling.
Begin with `emitter`, which calls the observers, then `event_log`, which writes log records.
"""
