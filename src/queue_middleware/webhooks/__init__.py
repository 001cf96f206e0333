"""Webhooks: from a delivery that is due to a recorded attempt.

May import: `events`, `outbound`, `jobs` and what lies below them; never `tasks`,
whose formats are registered from above.
Begin with `dispatcher` (the loop), then `message` (what is sent), `retry` and `circuit` (what follows from the response).
"""
