"""Integrations that verify a webhook before a handler is called: `fastapi` (also for Starlette) and `flask`."""

LARGEST_BODY = 65 * 2**20
"""Bytes of a webhook that are read before it is verified: the largest response by default, and the envelope around it."""
