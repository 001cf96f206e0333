"""The running service that a command calls: its address and the key of the client, as flags and from the environment."""

from __future__ import annotations

import argparse
import os

import httpx

from queue_middleware.webhooks.formats.user_agent import USER_AGENT

from .exit_codes import NotUnderstood

DEFAULT_URL = "http://127.0.0.1:8000/fal/queue"


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add `--url`."""
    parser.add_argument("--url", metavar="URL", help=f"the queue's routes; default QUEUE_URL, otherwise {DEFAULT_URL}")


def add_key(parser: argparse.ArgumentParser) -> None:
    """Add `--key`."""
    parser.add_argument("--key", metavar="KEY", help="sent as `Authorization: Key …`; default QUEUE_API_KEY")


def url_of(chosen: argparse.Namespace) -> str:
    """The address of the queue's routes, without a slash at the end. Raises `NotUnderstood`."""
    return http_url(chosen.url or os.environ.get("QUEUE_URL") or DEFAULT_URL, "--url").rstrip("/")


def key_headers(chosen: argparse.Namespace) -> dict[str, str]:
    """The headers that name the client; empty without a key. Raises `NotUnderstood`, whose text does not contain the key."""
    key = (chosen.key or os.environ.get("QUEUE_API_KEY") or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise NotUnderstood("the key of --key or QUEUE_API_KEY contains characters that a header cannot have")
    return {"authorization": f"Key {key}"} if key else {}


def http_url(text: str, flag: str) -> str:
    """The text, if it is a URL that can be called. Raises `NotUnderstood`; the message does not repeat a password."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise NotUnderstood(f"{flag} needs a URL that begins with http:// or https://")
    return text


def shown_url(url: str) -> str:
    """The URL for messages: without a password."""
    parsed = httpx.URL(url)
    return str(parsed.copy_with(username="…", password=None)) if parsed.userinfo else url


def user_agent() -> dict[str, str]:
    """The header that names this program."""
    return {"user-agent": USER_AGENT}
