"""What became of a webhook whose process was lost."""

from __future__ import annotations

from .models import WebhookKind
from .struct import Struct


class GivenUpDelivery(Struct, frozen=True):
    """A webhook that is not sent again, because too many processes that sent it were lost."""

    delivery_id: int
    request_id: str
    kind: WebhookKind
    host: str
    attempt: int
    """The attempt that was lost last."""
    error: str
