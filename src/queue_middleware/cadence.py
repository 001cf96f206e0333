"""When a provider is asked again: arithmetic between his interval, what he wishes, and the end of our patience."""

from __future__ import annotations

from .backoff import retry_after
from .models import Headers

SHORTEST = 1.0
LONGEST_WISH = 3600.0
_LONGEST_PAUSE = 60.0
_FIRST_PAUSE = 5.0


def next_question(interval: float, left: float, failures: int, headers: Headers, now: float) -> float | None:
    """Seconds until the next question; None when this one was the last.

    `interval` seconds between two, `left` seconds until patience ends, at which there is a last question. After `failures`
    questions in a row that came to nothing it is the interval, but at most five seconds, doubled each time up to a minute.
    `Retry-After` in `headers` (RFC 9110 §10.2.3) counts instead, from a second to an hour. `now` in Unix seconds.
    """
    if left <= 0:
        return None
    wish = retry_after(headers, now)
    if wish > 0:
        wait = min(max(wish, SHORTEST), LONGEST_WISH)
    elif failures:
        wait = min(min(interval, _FIRST_PAUSE) * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE)
    else:
        wait = interval
    return min(wait, left)


def first_question(interval: float, left: float, headers: Headers, now: float, *, word_awaited: bool) -> float:
    """Seconds from the answer to the first call until the first question; the other arguments are those of `next_question`.

    Where the provider is expected to call by himself (`word_awaited`), he is asked at half of the time and at its end only, in
    case that his call was lost (AsyncQueue contract, better 7).
    """
    return left / 2 if word_awaited else next_question(interval, left, 0, headers, now) or 0.0
