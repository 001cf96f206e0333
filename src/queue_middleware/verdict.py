"""What follows from the answer to a webhook: accepted, again later, or never again. Pure."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from .backoff import scheduled
from .models import Headers

_LONGEST_RETRY_AFTER = 86400.0


def trouble(status: int) -> str | None:
    """What is wrong with an answer, as it is recorded; None for 2xx."""
    if 200 <= status < 300:
        return None
    return f"answered {status}; redirects are not followed" if 300 <= status < 400 else f"answered {status}"


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


def retry_after(headers: Headers, now: float) -> float:
    """Seconds of `Retry-After`, either form (RFC 9110 §10.2.3), at most a day; 0 where there is none that can be read."""
    text = next((value for name, value in headers if name == b"retry-after"), b"").decode("latin-1").strip()
    try:
        seconds = float(int(text)) if text.isdecimal() else _date(text) - now
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def _date(text: str) -> float:
    found = parsedate_to_datetime(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
