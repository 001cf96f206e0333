"""Ready-made receivers, one for each framework: `fastapi` (and Starlette) and `flask`. Each hands over what was verified."""

LARGEST_BODY = 65 * 2**20
"""Bytes of a webhook that are read before it is verified: the largest answer by default, and the envelope around it."""
