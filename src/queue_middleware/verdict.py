"""What follows from the answer to a webhook: accepted, again later, or never again. Pure."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from .backoff import retry_after, scheduled
from .models import Headers

_LONGEST_LOCATION = 300


def trouble(status: int, headers: Headers = (), url: str = "") -> str | None:
    """What is wrong with an answer to `url`, as it is recorded for the operator; None for 2xx."""
    if 200 <= status < 300:
        return None
    if not 300 <= status < 400:
        return f"answered {status}"
    where = _redirected_to(headers, url)
    return f"answered {status}; redirects are not followed" + (f", this one leads to {where}" if where else "")


def _redirected_to(headers: Headers, url: str) -> str:
    """Origin and path: what stands behind them may be a secret. Empty where nothing can be read."""
    location = next((value for name, value in headers if name == b"location"), b"").decode("latin-1")
    try:
        parts = urlsplit(urljoin(url, location)) if location else None
    except ValueError:
        return ""
    if parts is None or not parts.hostname:
        return ""
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return "".join(character if character.isprintable() else "?" for character in shown)[:_LONGEST_LOCATION]


def follow_up(status: int, headers: Headers, tries: int, schedule: tuple[float, ...], now: float) -> float | None:
    """Seconds until the next attempt after this answer to attempt number `tries`; None where there is none.

    A redirect and 410 are final. `Retry-After` of 429 and 503 can only make it later. `now` in Unix seconds.
    """
    if 200 <= status < 400 or status == 410:
        return None
    wait = scheduled(schedule, tries)
    if wait is None or status not in (429, 503):
        return wait
    return max(wait, retry_after(headers, now))
