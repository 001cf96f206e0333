"""One error tree; each class has the HTTP status of its response.

QueueError
├── SettingsError                    an option is wrong; raised at construction
├── RotationRefused                  the signing keys are not changed
├── MaintenanceRefused               a backup, compaction or migration of the database was not made
├── BadRequest              400      a malformed path, parameter, header or number
│   └── StillInProgress     400      the result was requested before the request has completed
├── Unauthorized            401      no key, or an unknown one
├── NotAllowed              403      this path may not be queued, or this host may not be called
├── Forbidden               403      the task belongs to another client
├── CrossSite               403      a browser sent it from a page of another site
├── UnknownRoute            404      no such path under the prefix
├── UnknownRequest          404      no such request, or one of another client
│   └── NotKept             404      the stored request of an ended job was deleted, or never kept
├── MethodNotAllowed        405      with `Allow`
├── BodyTooSlow             408      the request body arrives too slowly
├── AlreadyEnded            409      a callback, a signal or a cancellation came too late
├── NotEnded                409      a request cannot be copied before it has ended
├── SelectionDiffers        409      an act on many requests that are not as many as expected
├── TooLarge                413      the request body is too large
├── UriTooLong              414      path and query are too long
├── InvalidWebhook          422      a webhook URL that can never be called
├── IdempotencyKeyReused    422      an `Idempotency-Key` that was sent with another request
├── TooManyQueued           429      this client, or `fal_max_queue_length`; with `Retry-After`
├── RateLimited             429      too many lookups of unknown ids from one address; with `Retry-After`
├── HeadersTooLarge         431      the header block is too large
├── StoreError              500      the database failed unexpectedly
├── Unavailable             503      with `Retry-After`
│   ├── NotRunning                   no lifespan, or shutting down
│   ├── QueueFull                    `max_queued`, `max_tasks`
│   ├── StoreBusy                    the database cannot be written right now
│   ├── DiskFull                     too little free disk to accept more work
│   ├── DatabaseGone                 the database file was removed or replaced
│   └── Outdated                     a newer release has changed the database's tables
├── OutboundError                    a call to another host failed
│   ├── OutboundRefused              the guard does not allow the address
│   ├── OutboundUnreached            no connection was made to the host
│   ├── OutboundTimeout              no complete response arrived in time
│   └── OutboundBusy                 the call cannot be made right now, for a reason on this side
│       └── OutboundShortage         out of files, memory, ports or threads
└── VerificationError       401      a webhook that must not be trusted
    └── KeysUnavailable     503      the sender's key set cannot be fetched, so the signature cannot be checked
"""

from __future__ import annotations

import random
from typing import ClassVar


class QueueError(Exception):
    """Base of all errors of this package. `detail` is a sentence for the person who can fix the cause."""

    status: ClassVar[int] = 500

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Extra headers of the HTTP response, e.g. `retry-after`."""
        return ()


class SettingsError(QueueError, ValueError):
    """An option has a wrong name or value."""


class RotationRefused(QueueError):
    """The signing keys cannot or should not be changed right now; they are unchanged."""


class MaintenanceRefused(QueueError):
    """A backup, a compaction or a migration cannot or should not be made right now; the database is unchanged."""


class BadRequest(QueueError):
    """The request is malformed; nothing was stored."""

    status = 400


class StillInProgress(BadRequest):
    """The result was requested before the request has completed (docs/reference/protocols/fal.md, section 5)."""


class Unauthorized(QueueError):
    """The client presents no key, or an unknown one."""

    status = 401

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """`WWW-Authenticate` (RFC 9110 §11.6.1)."""
        return ((b"www-authenticate", b"Key, Bearer"),)


class NotAllowed(QueueError):
    """The path may not be queued, or the host may not be called."""

    status = 403


class Forbidden(QueueError):
    """The task belongs to another client."""

    status = 403


class CrossSite(QueueError):
    """A browser sent the request from a page of another site, and `cors_origins` does not allow that site."""

    status = 403


class UnknownRoute(QueueError):
    """There is no route at this path under the prefix."""

    status = 404


class UnknownRequest(QueueError):
    """No request with this id is visible to the client; those of other clients look like unknown ones."""

    status = 404


class NotKept(UnknownRequest):
    """The request is no longer stored, so an operator cannot submit it again; see the option `keep_requests`."""


class MethodNotAllowed(QueueError):
    """The route exists, but not with this method."""

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


class _Conflict(QueueError):
    status = 409


class AlreadyEnded(_Conflict):
    """A callback, signal or cancellation comes too late: the task has already ended with another outcome."""


class NotEnded(_Conflict):
    """The request has not ended, so an operator cannot submit it again yet."""


class SelectionDiffers(_Conflict):
    """An act selects another number of requests than the operator expects; nothing was changed."""


class TooLarge(QueueError):
    """The request body is larger than `max_request_body`."""

    status = 413


class UriTooLong(QueueError):
    """Path and query together are longer than the limit."""

    status = 414


class InvalidWebhook(QueueError):
    """The webhook URL can never be called: wrong scheme, user info, private address, or too long."""

    status = 422


class IdempotencyKeyReused(QueueError):
    """The client has sent the same `Idempotency-Key` with another request; nothing was stored."""

    status = 422


class HeadersTooLarge(QueueError):
    """The header block is larger than the limit (RFC 6585 §5)."""

    status = 431


class StoreError(QueueError):
    """The database failed in a way that the client did not cause."""


class _TryLater(QueueError):
    _is_exact: ClassVar[bool] = False
    """Whether the wait is specific to one client. Otherwise it varies, so that clients refused together return apart."""

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        most = retry_after if self._is_exact else retry_after + (retry_after + 1) // 2
        self.retry_after = random.randint(retry_after, most)  # noqa: S311

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """`Retry-After` in seconds (RFC 9110 §10.2.3)."""
        return ((b"retry-after", str(self.retry_after).encode()),)


class TooManyQueued(_TryLater):
    """The client has too many queued requests, or the queue is longer than the client accepts."""

    status = 429


class RateLimited(_TryLater):
    """Too many lookups of unknown ids from one client address."""

    status = 429
    _is_exact = True


class Unavailable(_TryLater):
    """The queue cannot accept this now; the same request may succeed later."""

    status = 503


class NotRunning(Unavailable):
    """The queue was not started, or is shutting down."""


class QueueFull(Unavailable):
    """`max_queued` requests are queued, or `max_tasks` tasks have not ended."""


class StoreBusy(Unavailable):
    """The database cannot be written right now."""


class DiskFull(Unavailable):
    """There is too little free disk space: with more work, the database could not store the results of what it has."""


class DatabaseGone(Unavailable):
    """The database file, or one of its companion files, was removed, renamed or replaced while the queue runs."""


class Outdated(Unavailable):
    """A newer release has changed the tables of the database; this process must not write to them any more."""


class OutboundError(QueueError):
    """A call to another host failed. `detail` describes the failure, and never contains content of a response."""


class OutboundRefused(OutboundError):
    """The guard does not allow the address. `is_final` if that follows from the URL alone, without a DNS lookup."""

    def __init__(self, detail: str, *, is_final: bool = False) -> None:
        super().__init__(detail)
        self.is_final = is_final


class OutboundUnreached(OutboundError):
    """No connection was made: the name was not resolved, the connection refused or too slow, or TLS failed."""


class OutboundTimeout(OutboundError):
    """A connection was made, and no complete response arrived in time."""


class OutboundBusy(OutboundError):
    """The call cannot be made right now, for a reason on this side; nothing was sent, and it can be retried soon."""


class OutboundShortage(OutboundBusy):
    """The process has no file descriptors, memory, ports or threads left for a connection."""


class VerificationError(QueueError):
    """A webhook that must not be trusted: a header is missing, it is too old, or no known key has signed it."""

    status = 401


class KeysUnavailable(VerificationError):
    """The key set cannot be fetched or read, so the signature cannot be checked; the sender may try again."""

    status = 503
