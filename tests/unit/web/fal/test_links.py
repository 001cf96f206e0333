"""The URLs in the responses."""

import json

import pytest

from queue_middleware.web.fal.responses import Links, link_parts, submitted_body

ID = "0192f0c0-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("links", "response", "status", "cancel"),
    [
        (
            Links("https://a.example/fal/queue"),
            f"https://a.example/fal/queue/requests/{ID}/response",
            f"https://a.example/fal/queue/requests/{ID}/status",
            f"https://a.example/fal/queue/requests/{ID}/cancel",
        ),
        (
            Links("https://queue.example/me/app", response_end=""),
            f"https://queue.example/me/app/requests/{ID}",
            f"https://queue.example/me/app/requests/{ID}/status",
            f"https://queue.example/me/app/requests/{ID}/cancel",
        ),
    ],
    ids=["gateway", "queue"],
)
def test_urls_have_the_form_that_clients_build(links: Links, response: str, status: str, cancel: str) -> None:
    content = json.loads(submitted_body(ID, 0, links))
    assert (content["response_url"], content["status_url"], content["cancel_url"]) == (response, status, cancel)


def test_long_urls_are_not_cached() -> None:
    """An app name may be as long as the server accepts."""
    before = link_parts.cache_info().currsize
    base = "https://a.example/fal/queue/run/o/" + "a" * 512
    assert json.loads(submitted_body(ID, 0, Links(base, response_end="")))["status_url"] == f"{base}/requests/{ID}/status"
    assert link_parts.cache_info().currsize == before
