"""A Sentry client that keeps what it would send. Nothing is patched and nothing is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations import Integration
from sentry_sdk.transport import Transport

DSN = "http://key@localhost/1"
"""Its transport is replaced, so this address is never used."""


class Sent(Transport):
    """Keeps the events as JSON values, as they would be sent."""

    def __init__(self) -> None:
        super().__init__({"dsn": DSN})
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            if item.payload.json is not None:
                self.events.append(json.loads(item.get_bytes()))

    def transactions(self, op: str) -> list[dict[str, Any]]:
        """The transactions with this operation."""
        found = [event for event in self.events if event.get("type") == "transaction"]
        return [event for event in found if event["contexts"]["trace"]["op"] == op]

    def spans(self, op: str) -> list[dict[str, Any]]:
        """The spans with this operation, inside transactions."""
        return [span for event in self.events for span in event.get("spans", ()) if span["op"] == op]

    @property
    def issues(self) -> list[dict[str, Any]]:
        """The events that are not transactions."""
        return [event for event in self.events if event.get("type") != "transaction"]


def initialize(sent: Sent, integrations: Sequence[Integration] = (), *, patches: bool = False, **options: Any) -> None:
    """Initialize the SDK. With `patches` it patches the frameworks and `logging` as it does by default, for ever."""
    sentry_sdk.init(
        DSN,
        transport=sent,
        integrations=integrations,
        default_integrations=patches,
        auto_enabling_integrations=patches,
        enable_backpressure_handling=False,  # it would start a thread
        **{"traces_sample_rate": 1.0, **options},
    )


@contextmanager
def reporting(**options: Any) -> Iterator[Sent]:
    """An initialized SDK without integrations, until the end of the block."""
    sent = Sent()
    with sentry_sdk.isolation_scope():
        initialize(sent, **options)
        try:
            yield sent
        finally:
            sentry_sdk.get_global_scope().set_client(None)
