"""Notes on exceptions of the application: every traceback then names the request, in logs and in trackers of errors."""

from __future__ import annotations

from contextlib import suppress

from queue_middleware.jobs.models import Claim

_PREFIX = "queue request "


def add_note(error: BaseException, claim: Claim) -> None:
    """Add the request id, the attempt and the route to the notes of an exception (PEP 678). Never raises.

    An application may raise the same object again, for another attempt or another request. It then names only the last one.
    """
    with suppress(Exception):  # a class of the application may forbid new attributes, or have other notes than a list
        notes = getattr(error, "__notes__", None)
        if notes:
            error.__notes__ = [note for note in notes if not (isinstance(note, str) and note.startswith(_PREFIX))]
        error.add_note(f"{_PREFIX}{claim.request_id}, attempt {claim.attempt} of {claim.route}")
