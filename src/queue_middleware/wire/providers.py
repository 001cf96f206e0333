"""The services we know that answer first and work later, in one table: how they are asked, how what they send is recognised.

Addresses in the table are relative to the `targetUrl`: the same template serves a provider's regional hosts, a gateway in front
of it, and a stand-in in a test, and a key is never sent to another host than the one it was meant for.
Sources: AsyncQueue's provider templates, and the providers' own API references as they were in 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from queue_middleware.errors import BadRequest
from queue_middleware.hosts import host_of
from queue_middleware.taskspec import PollConfig
from queue_middleware.value import Value

from .pollconfig import shown_poll_config, spelled, words
from .templates import members, read_path


class Provider(Value, frozen=True):
    """A service that we know."""

    id: str
    name: str
    description: str
    hosts: frozenset[str]
    """Where its API lives: a task that calls one of these is known to be for this provider."""
    poll: PollConfig
    marks: frozenset[str] = frozenset()
    """Keys that everything it sends to a callback URL has: with a known status beside them it is recognised by them."""
    underway: frozenset[str] = frozenset()
    """Statuses of what it sends before the last."""


_TABLE = (
    Provider(
        id="fal",
        name="fal.ai",
        description="AI media generation (images, video, audio)",
        hosts=frozenset({"queue.fal.run", "queue.falrun.com"}),
        poll=PollConfig(
            url_template="{startResult.body.status_url}",
            status_path="status",
            # OK and ERROR are those of its webhook; when it is asked, a failure too is COMPLETED, and its result is not a 2xx.
            done_values=("COMPLETED", "OK"),
            fail_values=("FAILED", "ERROR"),
            interval=3.0,
            result_url_template="{startResult.body.response_url}",
        ),
        marks=frozenset({"request_id", "status"}),
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
        marks=frozenset({"id", "input", "status", "created_at"}),
        underway=frozenset({"starting", "processing"}),
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
        marks=frozenset({"id", "state", "created_at"}),
        underway=frozenset({"queued", "dreaming", "processing"}),
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
            # As JSON the video is base64 in a text; otherwise it would be bytes, which a task's result cannot hold as they are.
            headers={"accept": "application/json"},
        ),
    ),
)

PROVIDERS: Mapping[str, Provider] = {provider.id: provider for provider in _TABLE}
"""Those we know, by the name that a task calls them by."""


_MARKS = tuple(sorted(frozenset().union(*(provider.marks for provider in _TABLE))))


def find_provider(name: str) -> Provider:
    """The provider of that name. Raises `BadRequest`."""
    if name not in PROVIDERS:
        raise BadRequest(f"provider is {name[:64]!r}; it takes one of {', '.join(PROVIDERS)}, or use pollConfig")
    return PROVIDERS[name]


def provider_of(url: str) -> Provider | None:
    """Whose host this is, if we know it."""
    host = host_of(url)
    return next((provider for provider in _TABLE if host in provider.hosts), None)


def recognise(payload: Any) -> Provider | None:
    """Who sends such payloads, by the keys that all of them have and a status that only he uses; None for all others."""
    found = members(payload, _MARKS)
    if found is None:
        return None
    for provider in _TABLE:
        if provider.marks and provider.marks <= found.keys():
            word = spelled(read_path(payload, provider.poll.status_path))
            if word in provider.underway or word in words(provider.poll.done_values) | words(provider.poll.fail_values):
                return provider
    return None


def providers_body() -> bytes:
    """The answer to `GET /v1/providers`: `{"providers": [{"id", "name", "description", "pollConfig"}]}`."""
    shown = [
        {"id": each.id, "name": each.name, "description": each.description, "pollConfig": shown_poll_config(each.poll)}
        for each in _TABLE
    ]
    return msgspec.json.encode({"providers": shown})
