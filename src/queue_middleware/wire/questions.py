"""What is sent with a question to a provider, and to whom the task's own headers may be shown."""

from __future__ import annotations

from queue_middleware.hosts import Origin, origin_of
from queue_middleware.models import Headers
from queue_middleware.taskspec import PollConfig
from queue_middleware.version import USER_AGENT

_NOT_FORWARDED = frozenset(
    {
        b"host",
        b"connection",
        b"transfer-encoding",
        b"te",
        b"expect",
        b"prefer",
        b"range",
        b"accept-encoding",
        b"idempotency-key",
    }
)  # fmt: skip
_PLACEHOLDER = b"callback_url}"
_ALWAYS: Headers = (
    (b"accept", b"application/json, */*;q=0.5"),
    (b"user-agent", USER_AGENT.encode()),
    (b"accept-encoding", b"identity"),
)


def question_headers(config: PollConfig, home: str, given: Headers, url: str) -> Headers:
    """What is sent with a question at `url`. `home` is the `targetUrl`, `given` the headers of the task.

    These, which hold its key, go to the host of the `targetUrl` and to hosts that the submitter himself wrote into the
    templates, and never to one that a provider's answer names. Those about the body of the first call go nowhere.
    """
    own = {name.lower().encode("ascii"): value.encode("ascii") for name, value in config.headers.items()}
    headers: list[tuple[bytes, bytes]] = []
    if config.forward_auth and origin_of(url) in _trusted(config, home):
        headers = [(name, value) for name, value in given if _is_forwarded(name, value) and name not in own]
    said = own.keys() | {name for name, _ in headers}
    return (*headers, *own.items(), *(pair for pair in _ALWAYS if pair[0] not in said))


def host_asked(config: PollConfig, home: str) -> str:
    """Origin of the first address that is asked; that of the `targetUrl` where only the answer to the first call says it."""
    origin = origin_of(config.url_template) or origin_of(home)
    return "" if origin is None else f"{origin.scheme}://{origin.netloc_with_port}"


def _trusted(config: PollConfig, home: str) -> set[Origin | None]:
    written = (config.url_template, config.result_url_template or "")
    return ({origin_of(home)} | {origin_of(template) for template in written if not template.startswith("{")}) - {None}


def _is_forwarded(name: bytes, value: bytes) -> bool:
    return name not in _NOT_FORWARDED and not name.startswith((b"content-", b"if-")) and _PLACEHOLDER not in value
