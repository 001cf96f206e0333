"""The call of a delivery attempt in a queue that has instrumentations."""

from __future__ import annotations

from queue_middleware.instrumentation import CallKind, CallWork, Instruments
from queue_middleware.jobs.models import Headers
from queue_middleware.outbound.client import HTTPClient, Response
from queue_middleware.outbound.http11 import StreamBody
from queue_middleware.syntax.hosts import origin_of

from .models import DeliveryClaim


async def post_inside(
    instruments: Instruments, outbound: HTTPClient, delivery: DeliveryClaim, headers: Headers, body: bytes | StreamBody
) -> Response:
    """Send the message inside what the instrumentations enter. Raises as `HTTPClient.post` does."""
    work = CallWork(
        CallKind.WEBHOOK,
        delivery.request_id,
        "POST",
        origin_of(delivery.url),
        delivery.attempt,
        headers,
        message_id=delivery.webhook_id,
        label=str(delivery.kind),
        trace=delivery.trace if delivery.trace is not None else await instruments.trace_of(delivery.key),
        is_at_once=delivery.trace is not None,
    )
    with instruments.call(work):
        response = await outbound.post(delivery.url, work.headers, body)
        work.status = response.status
    return response
