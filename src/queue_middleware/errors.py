"""What can go wrong: one root, each error knows the HTTP status it is answered with.

QueueError
├── SettingsError                    a wrong option, told at construction
├── RotationRefused                  the signing keys are not changed
├── BadRequest              400      a malformed path, parameter, header or number
│   └── StillInProgress     400      the result was asked for before there is one
├── Unauthorized            401      no key, or none that we know
├── NotAllowed              403      this path may not be queued, this host may not be called
├── Forbidden               403      somebody else's task
├── CrossSite               403      a page of another site made a browser send it
├── UnknownRoute            404      no such path under the prefix
├── UnknownRequest          404      no such request, or somebody else's
├── MethodNotAllowed        405      with `Allow`
├── BodyTooSlow             408      the body of the request stopped in the middle
├── AlreadyEnded            409      a callback, a signal or a cancellation that came too late
├── TooLarge                413      body
├── UriTooLong              414
├── InvalidWebhook          422      a webhook URL that is never going to be called
├── TooManyQueued           429      this client, or `fal_max_queue_length`; with `Retry-After`
├── TooManyGuesses          429      this address has named too many ids that there are not; with `Retry-After`
├── HeadersTooLarge         431
├── StoreError              500      the database answered with something unexpected
├── Unavailable             503      with `Retry-After`
│   ├── NotRunning                   no lifespan, or shutting down
│   ├── QueueFull                    `max_queued`, `max_tasks`
│   ├── StoreBusy                    the database cannot be written right now
│   ├── DiskFull                     too little free disk to accept more work
│   ├── DatabaseGone                 the database's file was removed or replaced
│   └── Outdated                     a newer release has changed the database's tables
├── OutboundError                    a call of ours to somebody else failed
│   ├── OutboundRefused              the guard does not let us connect there
│   ├── OutboundUnreached            no connection was made to the host
│   └── OutboundBusy                 the call cannot be made right now, for no fault of the other side
│       └── OutboundShortage         this process lacks files, memory, ports or threads
└── VerificationError       401      a webhook that must not be trusted
    └── KeysUnavailable     503      the sender's key set cannot be had, so nothing can be said
"""

from __future__ import annotations

import random
from typing import ClassVar


class QueueError(Exception):
    """Root of everything this package raises. `detail` is a sentence for the person who can mend it."""

    status: ClassVar[int] = 500

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Extra headers of the HTTP answer, e.g. `retry-after`."""
        return ()


class SettingsError(QueueError, ValueError):
    """An option has a wrong name or value."""


class RotationRefused(QueueError):
    """The signing keys cannot be changed, or should not be right now; they are as they were."""


class BadRequest(QueueError):
    """The request is malformed; nothing was stored."""

    status = 400


class StillInProgress(BadRequest):
    """The result was asked for before the request was completed (fal queue contract, section 5)."""


class Unauthorized(QueueError):
    """Nobody says who he is, or he says it with a key that we do not know."""

    status = 401

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """`WWW-Authenticate` (RFC 9110 §11.6.1)."""
        return ((b"www-authenticate", b"Key, Bearer"),)


class NotAllowed(QueueError):
    """The path is not one of those that may be queued, or the host none of those that may be called."""

    status = 403


class Forbidden(QueueError):
    """The task is somebody else's."""

    status = 403


class CrossSite(QueueError):
    """A page of another site made its visitor's browser send the request, and `cors_origins` does not allow it."""

    status = 403


class UnknownRoute(QueueError):
    """There is nothing at this path under the prefix."""

    status = 404


class UnknownRequest(QueueError):
    """No request with this id is visible to the caller; foreign and unknown ones look the same."""

    status = 404


class MethodNotAllowed(QueueError):
    """The route exists, with other methods."""

    status = 405

    def __init__(self, detail: str, allow: str) -> None:
        super().__init__(detail)
        self.allow = allow

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """`Allow` (RFC 9110 §15.5.6)."""
        return ((b"allow", self.allow.encode()),)


class BodyTooSlow(QueueError):
    """The body of the request arrived too slowly; nothing was stored (RFC 9110 §15.5.9)."""

    status = 408


class AlreadyEnded(QueueError):
    """What somebody says about a task, or wants of it, comes too late: it has ended otherwise."""

    status = 409


class TooLarge(QueueError):
    """The request body is larger than `max_request_body`."""

    status = 413


class UriTooLong(QueueError):
    """Path and query together are longer than the limit."""

    status = 414


class InvalidWebhook(QueueError):
    """The webhook URL can never be called: wrong scheme, user info, private address, too long."""

    status = 422


class HeadersTooLarge(QueueError):
    """The header block is larger than the limit (RFC 6585 §5)."""

    status = 431


class StoreError(QueueError):
    """The database failed in a way that is nobody's fault on the wire."""


class _TryLater(QueueError):
    _is_exact: ClassVar[bool] = False
    """Whether the time is one's own, and not the same for all who are refused at the moment."""

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        # Up to half as long again, or all who were refused together would come again together.
        most = retry_after if self._is_exact else retry_after + (retry_after + 1) // 2
        self.retry_after = random.randint(retry_after, most)  # noqa: S311

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """`Retry-After` in seconds (RFC 9110 §10.2.3)."""
        return ((b"retry-after", str(self.retry_after).encode()),)


class TooManyQueued(_TryLater):
    """The client has too many waiting requests, or the queue is longer than it accepts."""

    status = 429


class TooManyGuesses(_TryLater):
    """An address has named more ids that there are not than somebody who knows one ever would."""

    status = 429
    _is_exact = True


class Unavailable(_TryLater):
    """The queue cannot take this now; the same request may succeed later."""

    status = 503


class NotRunning(Unavailable):
    """The queue was not started, or is shutting down."""


class QueueFull(Unavailable):
    """`max_queued` requests are waiting, or `max_tasks` tasks have not ended."""


class StoreBusy(Unavailable):
    """The database cannot be written right now."""


class DiskFull(Unavailable):
    """Accepting more work could leave the database unable to finish what it has."""


class DatabaseGone(Unavailable):
    """The file of the database, or one beside it, was removed, renamed or replaced while the queue runs."""


class Outdated(Unavailable):
    """Another release has changed the tables of the database; this process must not write to them any more."""


class OutboundError(QueueError):
    """A call of ours to another host failed; `detail` says how, never what the other side answered."""


class OutboundRefused(OutboundError):
    """The guard does not let us connect there. `is_final` where that follows from the URL alone, not from an address."""

    def __init__(self, detail: str, *, is_final: bool = False) -> None:
        super().__init__(detail)
        self.is_final = is_final


class OutboundUnreached(OutboundError):
    """No connection was made: the name was not resolved, the connection refused or too slow, or TLS failed."""


class OutboundBusy(OutboundError):
    """The call cannot be made right now, for no fault of the other side; nothing was sent, and it may be made again soon."""


class OutboundShortage(OutboundBusy):
    """This process lacks what a connection takes: file descriptors, memory, ports or threads."""


class VerificationError(QueueError):
    """A webhook that must not be trusted: header missing, too old, or signed by nobody we know."""

    status = 401


class KeysUnavailable(VerificationError):
    """The key set cannot be fetched or read: not the sender's fault, and he may try again."""

    status = 503
