"""The table of providers: well-formed, rendered as AsyncQueue renders it, and sufficient to detect the sender of a callback."""

import json

import pytest

from queue_middleware.errors import BadRequest
from queue_middleware.tasks.polling.config import LOCATION_POLLING, parse_poll_config, render_poll_config
from queue_middleware.tasks.polling.providers import PROVIDERS, detect_provider, find_provider, provider_of, providers_body


def test_they_are_rendered_with_their_whole_poll_config():
    shown = {each["id"]: each for each in json.loads(providers_body())["providers"]}
    assert list(shown) == ["fal", "replicate", "runwayml", "luma", "elevenlabs-dubbing", "stability-video"]
    assert all(set(each) == {"id", "name", "description", "pollConfig"} for each in shown.values())
    assert shown["fal"]["pollConfig"] == {
        "urlTemplate": "{startResult.body.status_url}",
        "interval": 3,
        "statusPath": "status",
        "doneValues": ["COMPLETED", "OK"],
        "failValues": ["FAILED", "ERROR"],
        "resultPath": "",
        "resultUrlTemplate": "{startResult.body.response_url}",
        "errorPath": "error",
        "forwardAuth": True,
        "maxDuration": 600,
    }
    timing = {name: (each["pollConfig"]["interval"], each["pollConfig"]["maxDuration"]) for name, each in shown.items()}
    assert timing == {
        "fal": (3, 600),
        "replicate": (5, 600),
        "runwayml": (5, 600),
        "luma": (5, 600),
        "elevenlabs-dubbing": (10, 1800),
        "stability-video": (10, 600),
    }


@pytest.mark.parametrize("config", [*(provider.poll for provider in PROVIDERS.values()), LOCATION_POLLING])
def test_each_is_a_valid_poll_config(config):
    assert parse_poll_config(json.loads(json.dumps(render_poll_config(config)))) == config


def test_the_error_for_an_unknown_name_lists_the_known_ones():
    assert find_provider("fal").poll.interval == 3.0
    with pytest.raises(BadRequest, match=r"provider is 'fall'; it must be one of fal, replicate, .*pollConfig"):
        find_provider("fall")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://queue.fal.run/fal-ai/flux/dev?fal_webhook=x", "fal"),
        ("https://API.Replicate.com:443/v1/predictions", "replicate"),
        ("https://api.dev.runwayml.com/v1/image_to_video", "runwayml"),
        ("https://api.lumalabs.ai/dream-machine/v1/generations", "luma"),
        ("https://api.elevenlabs.io/v1/dubbing", "elevenlabs-dubbing"),
        ("https://api.stability.ai/v2beta/image-to-video", "stability-video"),
        ("https://queue.fal.run.evil.example/", None),
        ("https://example.com/?queue.fal.run", None),
        ("https://[bad/", None),
        ("/local", None),
    ],
)
def test_hosts_are_known(url, name):
    provider = provider_of(url)
    assert (provider and provider.id) == name


REPLICATE = {"id": "x", "input": {}, "created_at": "2025", "output": None}


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        ({"request_id": "1", "gateway_request_id": "1", "status": "OK", "payload": {}}, "fal"),
        ({"request_id": "1", "status": "ERROR", "error": "Invalid status code: 422"}, "fal"),
        ({**REPLICATE, "status": "starting"}, "replicate"),
        ({**REPLICATE, "status": "succeeded"}, "replicate"),
        ({**REPLICATE, "status": "canceled"}, "replicate"),
        ({"id": "x", "state": "dreaming", "created_at": "2025", "assets": None}, "luma"),
        ({"id": "x", "state": "failed", "created_at": "2025", "failure_reason": "no"}, "luma"),
        # A payload that is only similar belongs to no provider, and any such payload completes a task.
        ({"status": "failed"}, None),
        ({"request_id": "1", "status": "shipped"}, None),
        ({**REPLICATE, "status": "paid"}, None),
        ({"id": "x", "state": "Ohio", "created_at": "2025"}, None),
        ({"request_id": "1", "status": None}, None),
        ({"request_id": "1", "status": {"OK": 1}}, None),
        ([], None),
        ("OK", None),
        (None, None),
    ],
)
def test_providers_are_detected_by_their_payloads(payload, name):
    provider = detect_provider(payload)
    assert (provider and provider.id) == name
