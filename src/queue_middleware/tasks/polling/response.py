"""Reads a provider's response to a poll, and its callback: still running, succeeded, failed, or a poll that failed.

Both are read by the same `PollConfig` (docs/reference/protocols/asyncqueue.md, "Provider polling" and "Extensions").
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

from queue_middleware.jobs.models import StoredResponse
from queue_middleware.jobs.struct import Struct
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.syntax.json_text import MISSING, encode, read_json

from .config import COMMON_FAIL_VALUES, status_key, status_keys
from .providers import detect_provider, provider_of
from .templates import StartResponse, header, read_path, render

MAX_REDIRECTS = 5
_RETRIES_OF_FINAL = 2
"""How often a poll is repeated after a response that is probably final: a 404 soon after the start, a 5xx for the result."""
_TEMPORARY = frozenset({408, 425, 429})
_SEE_OTHER = 303
_REDIRECTS = frozenset({301, 302, 307, 308})
_ACCEPTED = 202
_MAX_TEXT_LENGTH = 500
_ERROR_PATHS = (
    "error.message",
    "error",
    "detail.message",
    "detail",
    "message",
    "errors",
    "failure",
    "failure_reason",
    "reason",
)
_JSON = (b"content-type", b"application/json")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")


class PollUrls(Struct, frozen=True):
    """The URLs of a task's polls, rendered from the target's response."""

    url: str
    """Where the status is fetched from."""
    result_url: str | None
    """Where the result is fetched from, if it is not part of the status."""


class Running(Struct, frozen=True):
    """The work is not finished."""

    status: str | None = None
    """The provider's status, if it sent one."""
    fraction: float | None = None
    """Progress from 0 to 1, if the provider reports it."""


class Succeeded(Struct, frozen=True):
    """The work succeeded, and this is its result."""

    response: StoredResponse


class FetchResult(Struct, frozen=True):
    """The work succeeded; the result has to be fetched from `url`."""

    url: str


class Redirected(Struct, frozen=True):
    """The same request has to be sent to `url`."""

    url: str


class Failed(Struct, frozen=True):
    """The work failed."""

    error: str


class PollError(Struct, frozen=True):
    """The poll itself failed and has to be repeated; the state of the work is unknown."""

    error: str
    message: str = ""
    """The reason in the provider's response. Not for logs."""


PollOutcome = Running | Succeeded | FetchResult | Redirected | Failed | PollError


def poll_urls(config: PollConfig, start: StartResponse) -> PollUrls:
    """The URLs of the status and the result. Raises `TemplateError` if the target's response lacks a value for them."""
    result = config.result_url_template
    return PollUrls(render(config.url_template, start), None if result is None else render(result, start))


# --- responses to polls


def read_status(config: PollConfig, urls: PollUrls, url: str, response: StoredResponse, failures: int) -> PollOutcome:
    """Read the response to a poll of `url`. `failures` is the number of failed polls in a row before this one."""
    if (redirect := _redirect(url, response)) is not None:
        return redirect
    if not 200 <= response.status < 300:
        return _unsuccessful(f"the status request returned {response.status}", response, failures, 404)
    content = read_json(response.body)
    status = read_path(content, config.status_path) if config.status_path else response.status
    key = status_key(status)
    if key in status_keys(config.fail_values):
        return Failed(_configured_error(content, config, status))
    if key in status_keys(config.done_values) or (response.status != _ACCEPTED and _has_finished(config, key)):
        return FetchResult(urls.result_url) if urls.result_url is not None else Succeeded(_result(config, response, content))
    return _running(config, content, status)


def read_result(url: str, response: StoredResponse, failures: int) -> PollOutcome:
    """Read the response to a request for the result. Any other status than 2xx means that the work failed.

    fal reports a failure in this way: the status COMPLETED, and 422 for the result.
    """
    if (redirect := _redirect(url, response)) is not None:
        return FetchResult(redirect.url)
    if response.status == _ACCEPTED:
        return PollError("the result is not available yet")
    if 200 <= response.status < 300:
        return Succeeded(response)
    return _unsuccessful(f"the result request returned {response.status}", response, failures, *range(500, 600))


def _redirect(url: str, response: StoredResponse) -> FetchResult | Redirected | None:
    location = header(response.headers, b"location")
    if location is None or response.status not in _REDIRECTS | {_SEE_OTHER}:
        return None
    try:
        target = urljoin(url, location)
    except ValueError:
        return None
    return FetchResult(target) if response.status == _SEE_OTHER else Redirected(target)


def _unsuccessful(text: str, response: StoredResponse, failures: int, *doubtful: int) -> PollError | Failed:
    """A response without a 2xx status. Statuses in `doubtful` are final only if they are repeated."""
    detail = error_text(read_json(response.body))
    temporary = response.status in _TEMPORARY or (response.status >= 500 and response.status not in doubtful)
    if temporary or (response.status in doubtful and failures < _RETRIES_OF_FINAL):
        return PollError(text, detail)
    return Failed(f"{text}: {detail}" if detail else text)


def _has_finished(config: PollConfig, key: str | None) -> bool:
    """With `runningValues`, every status that is not among them means that the work has finished."""
    return bool(config.running_values) and key not in status_keys(config.running_values)


def _running(config: PollConfig, content: Any, status: Any) -> Running:
    progress = read_path(content, config.progress_path) if config.progress_path else MISSING
    return Running(_truncate(str(status)) if status_key(status) is not None else None, _fraction(progress))


def _fraction(progress: Any) -> float | None:
    """A number from 0 to 1; None for anything else."""
    if not isinstance(progress, int | float) or isinstance(progress, bool) or not 0 <= progress <= 1:
        return None
    return float(progress)


def _result(config: PollConfig, response: StoredResponse, content: Any) -> StoredResponse:
    """The part at `resultPath`: a string as text, anything else as JSON. Without such a part it is the whole response."""
    part = read_path(content, config.result_path) if config.result_path else MISSING
    if part is MISSING:
        return response
    if isinstance(part, str):
        return StoredResponse(200, (_TEXT,), part.encode())
    return StoredResponse(200, (_JSON,), encode(part))


def _configured_error(content: Any, config: PollConfig, status: Any) -> str:
    """The value at `errorPath` as text. If it is absent, what `error_text` finds, or the status."""
    found = read_path(content, config.error_path) if config.error_path else MISSING
    if found is MISSING or found is None or found == "":
        return error_text(content) or f"the provider reports status {_truncate(str(status))}"
    return _truncate(found if isinstance(found, str) else encode(found).decode())


def error_text(content: Any) -> str:
    """The error text in a body, found at the places that most services use for it; empty if there is none."""
    for path in _ERROR_PATHS:
        found = read_path(content, path)
        if isinstance(found, str) and found:
            return _truncate(found)
        if found is not MISSING and found is not None and not isinstance(found, str):
            return _truncate(encode(found).decode())
    return ""


def _truncate(text: str) -> str:
    return text if len(text) <= _MAX_TEXT_LENGTH else text[: _MAX_TEXT_LENGTH - 1] + "…"


# --- callbacks


def read_callback(content: Any, config: PollConfig | None, target: str | None) -> Running | Failed | None:
    """Read the JSON of a callback. None means that it is final and that its payload is the result.

    It is read by the task's own `PollConfig`, else by that of the provider whose host is in `target`, else by that of the
    provider that is detected from the payload. If none of them finds a status, the service sends one event only, so any payload
    is the result, unless its `status` or `state` is a common word for a failure.
    """
    known = config or _known_config(target, content)
    status = read_path(content, known.status_path) if known and known.status_path else MISSING
    key = status_key(status)
    if known is None or key is None:
        return _common_failure(content)
    if key in status_keys(known.fail_values):
        return Failed(_configured_error(content, known, status))
    if key in status_keys(known.done_values) or _has_finished(known, key):
        return None
    return _running(known, content, status)


def _common_failure(content: Any) -> Failed | None:
    for path in ("status", "state"):
        status = read_path(content, path)
        if isinstance(status, str) and status.casefold() in COMMON_FAIL_VALUES:
            return Failed(error_text(content) or f"the provider reports status {_truncate(status)}")
    return None


def _known_config(target: str | None, content: Any) -> PollConfig | None:
    provider = (provider_of(target) if target else None) or detect_provider(content)
    return provider.poll if provider else None
