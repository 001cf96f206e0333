"""For services that receive webhooks: verify that a webhook was signed by a known sender, and recently.

May import: of the queue only `errors`, `webhooks.formats` and `webhooks.signing`, so that a receiver needs no queue.
Begin with `verifier`; `fastapi` (also for Starlette) and `flask` call it before a handler.
"""

LARGEST_BODY = 65 * 2**20
"""Bytes of a webhook that are read before it is verified: the largest response by default, and the envelope around it."""
