"""Submit requests to a queue over HTTP, watch them to their end, and check that each webhook says what the queue says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from .display import Display, Row

_POLL = 0.1


class CheckFailed(Exception):
    """Something did not happen as it was promised; the text says what."""


@dataclass
class Watched:
    """A request on its way. `expected` is the HTTP status that its response must have."""

    row: Row
    submit_url: str
    urls: Mapping[str, str]
    expected: int
    answer: httpx.Response | None = None
    heard: int = 0
    """Log entries that were shown."""

    @property
    def request_id(self) -> str:
        """The queue's name for it."""
        return self.urls["request_id"]


@dataclass
class DemoClient:
    """Calls the service, and reads what arrived at the receiver."""

    service: str
    receiver: str
    http: httpx.AsyncClient
    display: Display
    requests: list[Watched] = field(default_factory=list)

    async def submit(self, label: str, path: str, body: Any, *, expected: int = 200) -> Watched:
        """Queue a POST of `body` to `path`, with a webhook to the receiver."""
        url = f"{self.service}/fal/queue/submit{path}?fal_webhook={self.receiver}/webhook"
        response = await self.http.post(url, json=body)
        if response.status_code != 200:
            raise CheckFailed(f"{label}: the submission was answered {response.status_code} {response.text}")
        watched = Watched(Row(label), url, response.json(), expected)
        self.requests.append(watched)
        self.display.rows.append(watched.row)
        self.display.changed(watched.row)
        return watched

    async def cancel(self, watched: Watched) -> None:
        """Ask the queue to cancel it."""
        response = await self.http.put(watched.urls["cancel_url"])
        if response.status_code != 202:
            raise CheckFailed(f"{watched.row.label}: cancel was answered {response.status_code} {response.text}")
        watched.row.cancelling = True
        self.display.changed(watched.row)

    async def until_running(self, watched: Watched, fraction: float = 0.0) -> None:
        """Wait until it runs and says that it has come this far."""
        while (await self._look(watched)) != "COMPLETED":
            if watched.row.status == "IN_PROGRESS" and (watched.row.fraction or 0.0) >= fraction:
                return
            await asyncio.sleep(_POLL)
        raise CheckFailed(f"{watched.row.label} was over before it could be seen running")

    async def until_over(self, watched: Watched) -> None:
        """Wait for the end, fetch the answer, then wait for the webhook and compare the two."""
        while True:
            if await self._look(watched) == "COMPLETED":
                break
            await asyncio.sleep(_POLL)
        row, watched.answer = watched.row, await self.http.get(watched.urls["response_url"])
        row.fraction, row.stage = 1.0, ""
        reason = watched.answer.headers.get("x-fal-error-type", watched.answer.reason_phrase)
        row.result = f"{watched.answer.status_code} {reason}"
        self.display.changed(row)
        if watched.answer.status_code != watched.expected:
            raise CheckFailed(f"{row.label}: expected {watched.expected}, got {row.result}: {watched.answer.text}")
        self._compare(watched, watched.answer, await self._webhook(watched))

    async def _look(self, watched: Watched) -> str:
        response = await self.http.get(watched.urls["status_url"], params={"logs": 1})
        if response.status_code not in (200, 202):
            raise CheckFailed(f"{watched.row.label}: its status was answered {response.status_code} {response.text}")
        status, row = response.json(), watched.row
        row.status, row.position = status["status"], status.get("queue_position")
        if row.status == "IN_PROGRESS" and (progress := status.get("progress")):
            row.fraction, row.stage = progress["fraction"], progress["stage"] or ""
        if row.status != "COMPLETED":  # that is told together with the answer
            self.display.changed(row)
        for entry in status["logs"][watched.heard :]:
            if "progress" not in entry["labels"]:  # reports of progress are among the entries, and shown already
                self.display.said(row, entry["message"])
        watched.heard = len(status["logs"])
        return row.status

    async def _webhook(self, watched: Watched) -> dict[str, Any]:
        while True:
            arrived = (await self.http.get(f"{self.receiver}/webhooks")).json()
            if arrived["refused"]:
                raise CheckFailed(f"the receiver refused a webhook: {arrived['refused'][0]}")
            for message in arrived["accepted"]:
                if message["request_id"] == watched.request_id:
                    return dict(message)
            await asyncio.sleep(_POLL)

    def _compare(self, watched: Watched, answer: httpx.Response, message: dict[str, Any]) -> None:
        told = (message["status"], message["error"])
        error = "Request was cancelled" if watched.expected == 499 else f"Invalid status code: {watched.expected}"
        if told != (("OK", None) if watched.expected == 200 else ("ERROR", error)):
            raise CheckFailed(f"{watched.row.label}: the webhook says {told}")
        if message["payload"] != answer.json():
            raise CheckFailed(f"{watched.row.label}: the webhook's payload is not the answer")
        watched.row.webhook = f"verified: {message['status']}" + (f", {message['error']}" if message["error"] else "")
        self.display.changed(watched.row)
