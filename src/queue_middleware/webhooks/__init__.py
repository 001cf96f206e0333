"""Webhooks: from a delivery that is due to a recorded attempt.

May import: `events`, `outbound`, `jobs`, `settings`, `background` and what lies below them; never `tasks`,
whose body format `runtime.supervisor` passes to `MessageBuilder`.
Begin with `dispatcher` (the loop), then `message` (what is sent), `retry` and `circuit` (what follows from the response).
"""
