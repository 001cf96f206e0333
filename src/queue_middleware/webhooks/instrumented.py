"""The call of a delivery attempt in a queue that has an instrumentation."""

from __future__ import annotations

from queue_middleware.instrumentation import CallKind, CallWork, Instrumentation
from queue_middleware.jobs.models import Headers
from queue_middleware.outbound.client import HTTPClient, Response
from queue_middleware.outbound.http11 import StreamBody
from queue_middleware.syntax.hosts import origin_of

from .models import DeliveryClaim


async def post_inside(
    instrumentation: Instrumentation, outbound: HTTPClient, delivery: DeliveryClaim, headers: Headers, body: bytes | StreamBody
) -> Response:
    """Send the message inside what the instrumentation enters. Raises as `HTTPClient.post` does."""
    origin = origin_of(delivery.url)
    work = CallWork(CallKind.WEBHOOK, delivery.request_id, "POST", origin, delivery.attempt, headers, str(delivery.kind))
    with instrumentation.call(work):
        response = await outbound.post(delivery.url, work.headers, body)
        work.status = response.status
    return response
