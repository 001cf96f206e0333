"""A host is the same however it is written, wherever hosts are compared."""

from __future__ import annotations

import base64

import pytest

from queue_middleware.errors import OutboundRefused, VerificationError
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.outbound.guard import Guard, parse_url
from queue_middleware.settings import Settings
from queue_middleware.syntax.hosts import canonical_authority, canonical_host, origin_of
from queue_middleware.tasks.callback_auth import CallbackVerifier
from queue_middleware.tasks.polling.providers import provider_of
from queue_middleware.tasks.polling.request import poll_headers
from queue_middleware.tasks.target import is_allowed_target
from queue_middleware.web.urls import is_at_host
from queue_middleware.webhooks.models import receiver_host

SPELLINGS = [
    ("api.example.com", "https://api.example.com/x"),
    ("api.example.com", "https://API.Example.COM./x"),
    ("api.example.com", "https://api.example.com:443"),
    ("api.example.com", "https://api\u3002example\uff0ecom/"),
    ("xn--bcher-kva.example", "https://bücher.example/"),
    ("xn--bcher-kva.example", "https://BÜCHER.example./"),
    ("xn--bcher-kva.example", "https://xn--bcher-kva.example:443/"),
    ("2001:db8::1", "https://[2001:DB8:0:0::1]/"),
    ("2001:db8::1", "https://[2001:db8::1]:443/x"),
    ("192.0.2.7", "https://192.0.2.7./"),
]
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(("host", "url"), SPELLINGS)
async def test_all_comparisons_treat_spellings_as_equal(host: str, url: str) -> None:
    origin = origin_of(url)
    assert origin is not None
    assert origin.host == canonical_host(parse_url(url).host) == host
    assert origin == origin_of(f"https://{'[' + host + ']' if ':' in host else host}:443/other")
    assert is_allowed_target(origin.host, Settings.load({"task_targets": [host]}, {}).task_targets)
    assert receiver_host(url) == origin.netloc
    with pytest.raises(VerificationError):
        await CallbackVerifier(Settings.load({"callback_keys": f"{host}={SECRET}"}, {}).callback_keys).verify(url, (), b"{}")


@pytest.mark.parametrize("entry", ["bücher.example", "BÜCHER.example.", "xn--bcher-kva.example", "*.EXAMPLE."])
def test_options_accept_any_spelling(entry: str) -> None:
    url = "http://xn--bcher-kva.example/"
    Guard([entry]).check_url(url)
    Guard([entry]).check_address("xn--bcher-kva.example.", "10.0.0.1")
    with pytest.raises(OutboundRefused):
        Guard().check_address("xn--bcher-kva.example.", "10.0.0.1")
    assert is_allowed_target("xn--bcher-kva.example", Settings.load({"task_targets": entry}, {}).task_targets)


def test_a_provider_is_known_by_any_spelling_of_its_host() -> None:
    for url in ("https://queue.fal.run/a", "https://QUEUE.fal.run./a", "https://queue.fal.run:443/a"):
        provider = provider_of(url)
        assert provider is not None
        assert provider.id == "fal"


def test_credentials_go_to_the_same_host_in_another_spelling_and_to_no_other() -> None:
    config = PollConfig("{startResult.body.url}", "status", ("done",), ())
    given = ((b"authorization", b"Key k"),)
    home = "https://api.example.com/start"
    for url, is_told in (("https://API.example.com.:443/x", True), ("https://api.example.com.evil.example/x", False)):
        assert (given[0] in poll_headers(config, home, given, url)) is is_told


def test_origins_of_pages_are_as_browsers_send_them() -> None:
    written = [
        "https://App.Example.com:443/",
        "https://bücher.example",
        "http://[0:0:0:0:0:0:0:1]:8080",
        "capacitor://localhost",
    ]
    found = ("https://app.example.com", "https://xn--bcher-kva.example", "http://[::1]:8080", "capacitor://localhost")
    assert Settings.load({"cors_origins": written}, {}).cors_origins == found


@pytest.mark.parametrize("sent", [b"queue.example.com", b"Queue.Example.COM.", b"queue.example.com:443"])
def test_a_host_of_the_queue_is_found_by_any_spelling(sent: bytes) -> None:
    hosts = frozenset(host.encode() for host in Settings.load({"fal_hosts": "QUEUE.example.com."}, {}).fal_hosts)
    assert is_at_host({"headers": [(b"host", sent)]}, hosts)
    v6 = frozenset(host.encode() for host in Settings.load({"fal_hosts": "[0:0::1]:8000"}, {}).fal_hosts)
    assert is_at_host({"headers": [(b"host", b"[::1]:8000")]}, v6)


@pytest.mark.parametrize("text", ["", ":", ":80", "[", "]", "a b", "%", "..", "xn--", "\uff41" * 400, "[::1", "::1", "\ud800"])
def test_an_invalid_host_does_not_raise(text: str) -> None:
    canonical_host(text)
    canonical_authority(text)
    origin_of(f"https://{text}/")
