"""The known providers in one table: how each is polled, and how its callbacks are detected.

URLs in the table are relative to the `targetUrl`, so the same template serves a provider's regional hosts, a gateway in front
of it, and a double in a test, and an API key is never sent to another host than the one that it was meant for.
Sources: AsyncQueue's provider templates, and the providers' own API references as of 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.struct import Struct
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.syntax.hosts import host_of

from .config import render_poll_config, status_key, status_keys
from .templates import members, read_path


class Provider(Struct, frozen=True):
    """A known service that accepts work first and finishes it later."""

    id: str
    name: str
    description: str
    hosts: frozenset[str]
    """The hosts of its API: a task that calls one of them is a task of this provider."""
    poll: PollConfig
    signature_keys: frozenset[str] = frozenset()
    """Keys that all of its callbacks have. Together with a known status they identify the provider."""
    in_progress_values: frozenset[str] = frozenset()
    """Statuses of the callbacks that it sends before the final one."""


_TABLE = (
    Provider(
        id="fal",
        name="fal.ai",
        description="AI media generation (images, video, audio)",
        hosts=frozenset({"queue.fal.run", "queue.falrun.com"}),
        poll=PollConfig(
            url_template="{startResult.body.status_url}",
            status_path="status",
            # OK and ERROR are the statuses of its webhooks. A poll reports a failure as COMPLETED, and its result is not a 2xx.
            done_values=("COMPLETED", "OK"),
            fail_values=("FAILED", "ERROR"),
            interval=3.0,
            result_url_template="{startResult.body.response_url}",
        ),
        signature_keys=frozenset({"request_id", "status"}),
    ),
    Provider(
        id="replicate",
        name="Replicate",
        description="Run open-source AI models",
        hosts=frozenset({"api.replicate.com"}),
        poll=PollConfig(
            url_template="{startResult.body.urls.get}",
            status_path="status",
            done_values=("succeeded",),
            fail_values=("failed", "canceled", "aborted"),
            result_path="output",
        ),
        signature_keys=frozenset({"id", "input", "status", "created_at"}),
        in_progress_values=frozenset({"starting", "processing"}),
    ),
    Provider(
        id="runwayml",
        name="RunwayML",
        description="AI video generation",
        hosts=frozenset({"api.dev.runwayml.com"}),
        poll=PollConfig(
            url_template="/v1/tasks/{startResult.body.id}",
            status_path="status",
            done_values=("SUCCEEDED",),
            fail_values=("FAILED", "CANCELLED"),
            result_path="output",
            error_path="failure",
            progress_path="progress",
        ),
    ),
    Provider(
        id="luma",
        name="Luma AI",
        description="Dream Machine video generation",
        hosts=frozenset({"api.lumalabs.ai"}),
        poll=PollConfig(
            url_template="/dream-machine/v1/generations/{startResult.body.id}",
            status_path="state",
            done_values=("completed",),
            fail_values=("failed",),
            result_path="assets.video",
            error_path="failure_reason",
        ),
        signature_keys=frozenset({"id", "state", "created_at"}),
        in_progress_values=frozenset({"queued", "dreaming", "processing"}),
    ),
    Provider(
        id="elevenlabs-dubbing",
        name="ElevenLabs Dubbing",
        description="AI video and audio dubbing and translation",
        hosts=frozenset({"api.elevenlabs.io"}),
        poll=PollConfig(
            url_template="/v1/dubbing/{startResult.body.dubbing_id}",
            status_path="status",
            done_values=("dubbed",),
            fail_values=("failed",),
            interval=10.0,
            max_duration=1800.0,
        ),
    ),
    Provider(
        id="stability-video",
        name="Stability AI Video",
        description="Stable Video Diffusion, image to video",
        hosts=frozenset({"api.stability.ai"}),
        poll=PollConfig(
            url_template="/v2beta/image-to-video/result/{startResult.body.id}",
            status_path="",
            done_values=(200,),
            fail_values=(),
            interval=10.0,
            error_path="errors",
            # As JSON the video is a base64 string; otherwise it would be bytes, which the result of a task cannot hold.
            headers={"accept": "application/json"},
        ),
    ),
)

PROVIDERS: Mapping[str, Provider] = {provider.id: provider for provider in _TABLE}
"""The known providers, by the name that a task gives in `provider`."""

_SIGNATURE_KEYS = tuple(sorted(frozenset().union(*(provider.signature_keys for provider in _TABLE))))


def find_provider(name: str) -> Provider:
    """The provider of that name. Raises `BadRequest` for an unknown one."""
    if name not in PROVIDERS:
        raise BadRequest(
            f"provider is {name[:64]!r}; it must be one of {', '.join(PROVIDERS)}; use pollConfig for any other service"
        )
    return PROVIDERS[name]


def provider_of(url: str) -> Provider | None:
    """The provider that this URL belongs to, if its host is known."""
    host = host_of(url)
    return next((provider for provider in _TABLE if host in provider.hosts), None)


def detect_provider(payload: Any) -> Provider | None:
    """The provider that sends such payloads, identified by its keys and its statuses; None if there is none."""
    found = members(payload, _SIGNATURE_KEYS)
    if found is None:
        return None
    for provider in _TABLE:
        if provider.signature_keys and provider.signature_keys <= found.keys():
            key = status_key(read_path(payload, provider.poll.status_path))
            final = status_keys(provider.poll.done_values) | status_keys(provider.poll.fail_values)
            if key in provider.in_progress_values or key in final:
                return provider
    return None


def providers_body() -> bytes:
    """The body of the response to `GET /v1/providers`: `{"providers": [{"id", "name", "description", "pollConfig"}]}`."""
    shown = [
        {"id": each.id, "name": each.name, "description": each.description, "pollConfig": render_poll_config(each.poll)}
        for each in _TABLE
    ]
    return msgspec.json.encode({"providers": shown})
