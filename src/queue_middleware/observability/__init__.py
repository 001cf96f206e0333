"""Observers of events. Each turns the values of `events` into records of another system.

May import: `events` and what lies below it; never `webhooks`, its sibling.
Begin with `event_log`, which writes log records.
"""
