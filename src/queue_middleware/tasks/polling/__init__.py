"""Asking an external service whether a task is finished.

May import: what `tasks` may import.
Begin with `poller` (the loop), then `request`, `response` and `schedule`; `providers` is the table of services that are known.
"""
