"""The URLs in our answers, in the form in which the client came (fal queue contract, sections 2 and 13)."""

from __future__ import annotations

import json
from functools import lru_cache

from queue_middleware.value import Value


class Links(Value, frozen=True):
    """Where one client finds his requests."""

    base: str
    """What stands in front of `/requests/{id}`: the URL of the prefix, or in the queue form that of the app."""
    response_end: str = "/response"
    """What stands behind `/requests/{id}` in the URL of the response; nothing in the queue form."""


@lru_cache(maxsize=256)
def around_id(links: Links) -> tuple[str, str, str, str]:
    """The JSON behind the four places of the request id: up to each of the three URLs, and up to the value of `logs`.

    `public_url` can hold a quote, so it is escaped.
    """
    text = json.dumps(links.base)[1:-1]
    return (
        f'", "response_url": "{text}/requests/',
        f'{links.response_end}", "status_url": "{text}/requests/',
        f'/status", "cancel_url": "{text}/requests/',
        '/cancel", "logs": ',
    )
