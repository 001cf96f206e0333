"""Submits requests to a queue over HTTP, follows them to their end, and checks that each webhook matches the response."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from .display import Display, Row

_POLL_SECONDS = 0.1


class CheckFailed(Exception):
    """The service did not behave as the demo expects; the text states the difference."""


@dataclass
class WatchedRequest:
    """A submitted request. `expected` is the HTTP status that its response must have."""

    row: Row
    submit_url: str
    urls: Mapping[str, str]
    expected: int
    response: httpx.Response | None = None
    entries_shown: int = 0
    """Number of log entries that the display has shown."""

    @property
    def request_id(self) -> str:
        """The request id that the queue returned."""
        return self.urls["request_id"]


@dataclass
class DemoClient:
    """Calls the service, and reads from the receiver which webhooks it received."""

    service: str
    receiver: str
    http: httpx.AsyncClient
    display: Display
    requests: list[WatchedRequest] = field(default_factory=list)

    async def submit(self, label: str, path: str, body: Any, *, expected: int = 200) -> WatchedRequest:
        """Submit a POST of `body` to `path`, with a webhook to the receiver."""
        url = f"{self.service}/fal/queue/submit{path}?fal_webhook={self.receiver}/webhook"
        response = await self.http.post(url, json=body)
        if response.status_code != 200:
            raise CheckFailed(f"{label}: the submission returned {response.status_code} {response.text}")
        watched = WatchedRequest(Row(label), url, response.json(), expected)
        self.requests.append(watched)
        self.display.rows.append(watched.row)
        self.display.changed(watched.row)
        return watched

    async def cancel(self, watched: WatchedRequest) -> None:
        """Cancel the request through the queue."""
        response = await self.http.put(watched.urls["cancel_url"])
        if response.status_code != 202:
            raise CheckFailed(f"{watched.row.label}: the cancellation returned {response.status_code} {response.text}")
        watched.row.cancelling = True
        self.display.changed(watched.row)

    async def wait_until_running(self, watched: WatchedRequest, fraction: float = 0.0) -> None:
        """Wait until the request runs and its progress has reached `fraction`."""
        while (await self._poll_status(watched)) != "COMPLETED":
            if watched.row.status == "IN_PROGRESS" and (watched.row.fraction or 0.0) >= fraction:
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise CheckFailed(f"{watched.row.label} completed before the client saw it running")

    async def wait_until_completed(self, watched: WatchedRequest) -> None:
        """Wait until the request is completed, fetch its response, wait for its webhook, and compare the two."""
        while True:
            if await self._poll_status(watched) == "COMPLETED":
                break
            await asyncio.sleep(_POLL_SECONDS)
        row, watched.response = watched.row, await self.http.get(watched.urls["response_url"])
        row.fraction, row.stage = 1.0, ""
        reason = watched.response.headers.get("x-fal-error-type", watched.response.reason_phrase)
        row.result = f"{watched.response.status_code} {reason}"
        self.display.changed(row)
        if watched.response.status_code != watched.expected:
            raise CheckFailed(f"{row.label}: expected {watched.expected}, got {row.result}: {watched.response.text}")
        self._compare(watched, watched.response, await self._wait_for_webhook(watched))

    async def _poll_status(self, watched: WatchedRequest) -> str:
        response = await self.http.get(watched.urls["status_url"], params={"logs": 1})
        if response.status_code not in (200, 202):
            raise CheckFailed(f"{watched.row.label}: the status request returned {response.status_code} {response.text}")
        status, row = response.json(), watched.row
        row.status, row.position = status["status"], status.get("queue_position")
        if row.status == "IN_PROGRESS" and (progress := status.get("progress")):
            row.fraction, row.stage = progress["fraction"], progress["stage"] or ""
        if row.status != "COMPLETED":  # shown later, together with the response
            self.display.changed(row)
        for entry in status["logs"][watched.entries_shown :]:
            if "progress" not in entry["labels"]:  # progress reports are entries too, and are already shown
                self.display.logged(row, entry["message"])
        watched.entries_shown = len(status["logs"])
        return row.status

    async def _wait_for_webhook(self, watched: WatchedRequest) -> dict[str, Any]:
        while True:
            arrived = (await self.http.get(f"{self.receiver}/webhooks")).json()
            if arrived["refused"]:
                raise CheckFailed(f"the receiver refused a webhook: {arrived['refused'][0]}")
            for message in arrived["accepted"]:
                if message["request_id"] == watched.request_id:
                    return dict(message)
            await asyncio.sleep(_POLL_SECONDS)

    def _compare(self, watched: WatchedRequest, response: httpx.Response, message: dict[str, Any]) -> None:
        outcome = (message["status"], message["error"])
        error = "Request was cancelled" if watched.expected == 499 else f"Invalid status code: {watched.expected}"
        if outcome != (("OK", None) if watched.expected == 200 else ("ERROR", error)):
            raise CheckFailed(f"{watched.row.label}: the webhook reports {outcome}")
        if message["payload"] != response.json():
            raise CheckFailed(f"{watched.row.label}: the webhook's payload differs from the response")
        watched.row.webhook = f"verified: {message['status']}" + (f", {message['error']}" if message["error"] else "")
        self.display.changed(watched.row)
