"""One request to the queue's routes, and how it is answered."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from queue_middleware.errors import QueueError
from queue_middleware.models import Headers
from queue_middleware.request_id import is_request_id
from queue_middleware.wire.routes import Route

from .access import client_of
from .address import Address

_JSON = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client closed the connection in the middle of its request."""


class Call:
    """What is known of a request while it is served."""

    __slots__ = (
        "address", "body_is_unread", "cancelling", "identity", "interruption", "measured", "receive", "request_id", "route",
        "scope", "send", "size", "stalled", "started",
    )  # fmt: skip

    address: Address
    route: Route
    """Set once it is found."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.request_id = ""
        self.identity: str | None = None
        """Who sends it; None where nobody is asked."""
        self.body_is_unread = False
        self.started = False
        self.size = 0
        """Bytes of its body that are in memory."""
        self.measured = 0
        """As many when enough of it had arrived for the last time, and the looks at it since then: see `Intake`."""
        self.stalled = 0
        self.interruption: QueueError | None = None
        """Why its body is not read any further, and how often its task had been cancelled before."""
        self.cancelling = 0

    @property
    def client(self) -> str:
        """Counted as one client: see `models.NewJob.client`."""
        return client_of(self.identity, self.scope)

    def name_request(self) -> None:
        """Let the answer say which request was asked about, whatever became of it."""
        route: Route | None = getattr(self, "route", None)
        if route is not None and is_request_id(route.request_id):
            self.request_id = route.request_id.lower()

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin an answer whose body follows by `send`."""
        self.started = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def answer_nothing(self) -> None:
        """Send 204."""
        named = [(b"x-fal-request-id", self.request_id.encode())] if self.request_id else []
        await self.start(204, [(b"cache-control", b"no-store"), *named])
        await self.send({"type": "http.response.body", "body": b""})

    async def answer(self, status: int, body: bytes, extra: Headers = ()) -> None:
        """Send a whole JSON answer."""
        if self.started:
            raise RuntimeError("an answer broke off, its end cannot be read")  # the server cuts the connection
        await self.start_json(status, len(body), extra)
        await self.send({"type": "http.response.body", "body": body})

    async def start_json(self, status: int, length: int, extra: Headers = ()) -> None:
        """Begin a JSON answer of so many bytes, which follow by `send`."""
        headers = [_JSON, (b"content-length", b"%d" % length), *extra]
        if self.request_id:
            headers.append((b"x-fal-request-id", self.request_id.encode()))
        await self.start(status, headers)
