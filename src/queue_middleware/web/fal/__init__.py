"""The routes of fal's queue (`docs/reference/protocols/fal.md`).

May import: the modules of `web` beside it, never `web.asyncqueue`.
Begin with `routes` (the table), then `endpoints`, `submit` and `status_stream`.
"""
