"""The routes of AsyncQueue (`docs/reference/protocols/asyncqueue.md`).

May import: the modules of `web` beside it, never `web.fal`.
Begin with `routes` (the table), then `endpoints` and `create_task`.
"""
