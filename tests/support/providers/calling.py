"""Fake providers that call back: fal, Replicate and Luma, with their phases, errors, webhooks and signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx

from queue_middleware.webhooks.formats import fal
from queue_middleware.webhooks.signing.keys import KeyPair

from .loopback import Call, Job, Provider, Refused, Reply


@dataclass
class Fal(Provider):
    """`ends` is the HTTP status of the application's response: `200`, `422`, `500`. A prompt is required."""

    phases: ClassVar[Sequence[str]] = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    pair: KeyPair = field(default_factory=KeyPair.generate)

    def check_key(self, call: Call) -> None:
        if call.path.startswith("/.well-known/"):
            return
        if call.headers.get("authorization") != f"Key {self.key}":
            raise Refused(401, {"detail": "invalid key credentials"})

    def statuses(self) -> list[str]:
        return [*self.phases[:-1][: self.polls_needed], self.phases[-1]]  # a failed request is COMPLETED as well

    async def begin(self, call: Call) -> Reply:
        job = self.create_job(json.loads(call.body or b"{}"), next(iter(call.query.get("fal_webhook", [])), None))
        owner, alias = call.path.split("/")[1:3]
        base = f"{self.url}/{owner}/{alias}/requests/{job.id}"
        urls = {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}
        return Reply(
            200, {"status": "IN_QUEUE", "request_id": job.id, **urls, "logs": None, "metrics": {}, "queue_position": 0}
        )

    async def poll(self, call: Call) -> Reply:
        match call.path.split("/")[1:]:
            case [".well-known", "jwks.json"]:
                return Reply(200, {"keys": [self.pair.jwk(padded=False)]})
            case [_, _, "requests", job_id, "status"]:
                status = self.next_status(self.job(job_id))
                body: dict[str, Any] = {"status": status, "request_id": job_id, "logs": None, "metrics": {}}
                return Reply(200 if status == "COMPLETED" else 202, body)
            case [_, _, "requests", job_id]:
                job = self.job(job_id)
                if job.phase < len(self.statuses()):
                    return Reply(400, {"detail": "Request is still in progress"})
                return self.result(job)
        raise Refused(404, {"detail": "Not found"})

    def result(self, job: Job) -> Reply:
        if "prompt" not in job.input:
            missing = {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}
            return Reply(422, {"detail": [missing]})
        if self.ends not in ("", "200"):
            return Reply(int(self.ends), {"detail": "Internal Server Error"})
        return Reply(200, {"images": [{"url": f"https://fal.media/{job.id}.png"}], "seed": 42, "prompt": job.input["prompt"]})

    async def call_back(self, job: Job, *, forged: bool = False) -> httpx.Response:
        """Send the signed webhook."""
        assert job.webhook is not None
        self.end(job)
        result = self.result(job)
        error = None if result.status == 200 else f"Invalid status code: {result.status}"
        content = {"error": error, "gateway_request_id": job.id, "payload": result.body, "request_id": job.id}
        body = json.dumps({**content, "status": "ERROR" if error else "OK"}, sort_keys=True).encode()
        now = str(int(time.time()))
        message = fal.signed_message(job.id, "github|1", now, body + b"!" * forged)
        headers = fal.webhook_headers(job.id, "github|1", now, self.pair.sign(message))
        plain = {name.decode(): value.decode() for name, value in headers}
        return await self.client.post(job.webhook, content=body, headers={"content-type": "application/json", **plain})


@dataclass
class Replicate(Provider):
    """`ends` is succeeded, failed or canceled."""

    phases: ClassVar[Sequence[str]] = ("starting", "processing", "succeeded")
    secret: str = "whsec_" + base64.b64encode(b"a secret that Replicate shows once").decode()

    async def begin(self, call: Call) -> Reply:
        content = call.json()
        if "input" not in content:
            raise Refused(422, {"title": "Input validation failed", "detail": "- input is required", "status": 422})
        job = self.create_job(content, content.get("webhook"))
        return Reply(201, self.prediction(job, "starting"))

    async def poll(self, call: Call) -> Reply:
        job = self.job(call.path.rpartition("/")[2])
        return Reply(200, self.prediction(job, self.next_status(job)))

    def prediction(self, job: Job, status: str) -> dict[str, Any]:
        over = status in ("succeeded", "failed", "canceled")
        url = f"{self.url}/v1/predictions/{job.id}"
        return {
            "id": job.id,
            "model": "stability-ai/stable-diffusion-3",
            "version": "hidden",
            "input": job.input["input"],
            "logs": "" if status == "starting" else "Using seed: 12103\n",
            "output": [f"https://replicate.delivery/{job.id}/out-0.webp"] if status == "succeeded" else None,
            "error": "CUDA out of memory" if status == "failed" else None,
            "status": status,
            "created_at": "2025-06-01T10:00:00.000Z",
            "started_at": None if status == "starting" else "2025-06-01T10:00:01.000Z",
            "completed_at": "2025-06-01T10:00:05.000Z" if over else None,
            "metrics": {"predict_time": 4.0} if over else {},
            "urls": {"get": url, "cancel": f"{url}/cancel"},
        }

    EVENTS: ClassVar[dict[str, str]] = {"start": "starting", "output": "processing", "completed": ""}

    async def call_back(self, job: Job, event: str = "completed", *, secret: str = "") -> httpx.Response | None:
        """Send one event, if the job subscribed to it."""
        if job.webhook is None or event not in job.input.get("webhook_events_filter", list(self.EVENTS)):
            return None
        if event == "completed":
            self.end(job)
        body = json.dumps(self.prediction(job, self.EVENTS[event] or self.status(job))).encode()
        headers = self.signed(f"msg_{job.id[:8]}_{event}", str(int(time.time())), body, secret or self.secret)
        return await self.client.post(job.webhook, content=body, headers={"content-type": "application/json", **headers})

    @staticmethod
    def signed(message_id: str, timestamp: str, body: bytes, secret: str) -> dict[str, str]:
        """Standard Webhooks, symmetric."""
        message = b".".join((message_id.encode(), timestamp.encode(), body))
        digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), message, hashlib.sha256).digest()
        signature = f"v1,{base64.b64encode(digest).decode()}"
        return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


@dataclass
class Luma(Provider):
    """`ends` is completed or failed. With a `callback_url` it reports every change of state."""

    phases: ClassVar[Sequence[str]] = ("queued", "dreaming", "completed")

    async def begin(self, call: Call) -> Reply:
        job = self.create_job(call.json(), call.json().get("callback_url"))
        return Reply(201, self.generation(job, "queued"))

    async def poll(self, call: Call) -> Reply:
        job = self.job(call.path.removeprefix("/dream-machine/v1/generations/"))
        return Reply(200, self.generation(job, self.next_status(job)))

    def generation(self, job: Job, state: str) -> dict[str, Any]:
        video = f"https://storage.cdn-luma.com/{job.id}.mp4"
        return {
            "id": job.id,
            "generation_type": "video",
            "state": state,
            "failure_reason": "prompt not allowed because advanced moderation failed" if state == "failed" else None,
            "created_at": "2025-06-01T10:00:00.000Z",
            "assets": {"video": video, "image": None, "progress_video": None} if state == "completed" else None,
            "model": "ray-2",
            "request": job.input,
        }

    async def call_back(self, job: Job, state: str) -> httpx.Response:
        """Send one state."""
        assert job.webhook is not None
        return await self.client.post(job.webhook, json=self.generation(job, state))
