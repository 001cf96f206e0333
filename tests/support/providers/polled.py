"""Fake providers that are polled: Runway, ElevenLabs dubbing, Stability video, and one that responds 202 with `Location`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .loopback import Call, Provider, Refused, Reply


@dataclass
class Runway(Provider):
    """`ends` is SUCCEEDED, FAILED or CANCELLED. Every call has to name the version of the API."""

    phases: ClassVar[Sequence[str]] = ("PENDING", "THROTTLED", "RUNNING", "SUCCEEDED")

    def check_key(self, call: Call) -> None:
        if call.headers.get("authorization") != f"Bearer {self.key}":
            raise Refused(401, {"error": "The API key is invalid."})
        if call.headers.get("x-runway-version") != "2024-11-06":
            raise Refused(400, {"error": "The X-Runway-Version header is missing or unknown."})

    async def begin(self, call: Call) -> Reply:
        return Reply(200, {"id": self.create_job(call.json()).id})

    async def poll(self, call: Call) -> Reply:
        job = self.job(call.path.removeprefix("/v1/tasks/"))
        status = self.next_status(job)
        body: dict[str, Any] = {"id": job.id, "status": status, "createdAt": "2025-06-01T10:00:00.000Z"}
        if status == "RUNNING":
            body["progress"] = 0.5
        elif status == "SUCCEEDED":
            body["output"] = [f"https://dnznrvs05pmza.cloudfront.net/{job.id}.mp4?_jwt=x"]
        elif status == "FAILED":
            body |= {"failure": "Your prompt was rejected by moderation.", "failureCode": "SAFETY.INPUT.TEXT"}
        return Reply(200, body)


@dataclass
class ElevenLabs(Provider):
    """`ends` is dubbed or failed."""

    phases: ClassVar[Sequence[str]] = ("dubbing", "dubbing", "dubbed")

    def check_key(self, call: Call) -> None:
        if call.headers.get("xi-api-key") != self.key:
            raise Refused(401, {"detail": {"status": "invalid_api_key", "message": "Invalid API key"}})

    async def begin(self, call: Call) -> Reply:
        return Reply(200, {"dubbing_id": self.create_job(call.body).id, "expected_duration_sec": 127.5})

    async def poll(self, call: Call) -> Reply:
        job = self.job(call.path.removeprefix("/v1/dubbing/"))
        status = self.next_status(job)
        error = "The video has no speech." if status == "failed" else None
        return Reply(200, {"dubbing_id": job.id, "name": "x", "status": status, "target_languages": ["es"], "error": error})


@dataclass
class Stability(Provider):
    """`ends` is 200, or the status with which the result is refused, such as 404 once it has expired."""

    phases: ClassVar[Sequence[str]] = ("202", "202", "200")
    VIDEO: ClassVar[bytes] = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256))

    async def begin(self, call: Call) -> Reply:
        return Reply(200, {"id": self.create_job(call.body).id})

    async def poll(self, call: Call) -> Reply:
        job = self.job(call.path.removeprefix("/v2beta/image-to-video/result/"))
        status = self.next_status(job)
        if status == "202":
            return Reply(202, {"id": job.id, "status": "in-progress"})
        if status != "200":
            return Reply(int(status), {"id": job.id, "name": "not_found", "errors": ["The result has expired."]})
        if "application/json" not in call.headers.get("accept", ""):
            return Reply(200, self.VIDEO, [("content-type", "video/mp4"), ("finish-reason", "SUCCESS"), ("seed", "1")])
        return Reply(200, {"video": base64.b64encode(self.VIDEO).decode(), "finish_reason": "SUCCESS", "seed": 1})


@dataclass
class Accepted(Provider):
    """A service that responds 202 with `Location`; `ends` is the last status: 200, or 303 to the result."""

    phases: ClassVar[Sequence[str]] = ("202", "202", "200")
    pace: str = "7"
    location: str = "/jobs/{id}"

    async def begin(self, call: Call) -> Reply:
        return Reply(
            202, b"", [("location", self.location.format(id=self.create_job(call.body).id)), ("retry-after", self.pace)]
        )

    async def poll(self, call: Call) -> Reply:
        if call.path.startswith("/results/"):
            return Reply(200, b"a,b\r\n1,2\r\n", [("content-type", "text/csv")])
        job = self.job(call.path.removeprefix("/jobs/"))
        status = self.next_status(job)
        if status == "202":
            return Reply(202, {"status": "running"}, [("retry-after", self.pace)])
        if status == "303":
            return Reply(303, b"", [("location", f"/results/{job.id}")])
        return Reply(200, {"rows": 3})
