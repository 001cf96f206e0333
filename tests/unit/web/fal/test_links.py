"""The URLs in the answers."""

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
def test_urls_end_as_the_clients_of_their_form_build_them(links: Links, response: str, status: str, cancel: str) -> None:
    told = json.loads(submitted_body(ID, 0, links))
    assert (told["response_url"], told["status_url"], told["cancel_url"]) == (response, status, cancel)


def test_urls_that_are_long_are_not_remembered() -> None:
    """An app can be named by as many letters as the server takes."""
    before = link_parts.cache_info().currsize
    base = "https://a.example/fal/queue/run/o/" + "a" * 512
    assert json.loads(submitted_body(ID, 0, Links(base, response_end="")))["status_url"] == f"{base}/requests/{ID}/status"
    assert link_parts.cache_info().currsize == before
