"""Reads, validates and renders the `pollConfig` of a task (docs/reference/protocols/asyncqueue.md, "Provider polling")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from queue_middleware.asgi.headers import MAX_HEADER_BYTES
from queue_middleware.errors import BadRequest
from queue_middleware.jobs.task_spec import PollConfig, StatusValue
from queue_middleware.syntax.hosts import origin_of

from .templates import check_path, check_template

MIN_INTERVAL = 0.1
MAX_INTERVAL = 3600.0
MAX_DURATION = 7 * 86400.0
HIDDEN = "***"
"""Shown in place of the value of a header, which may be an API key."""
COMMON_FAIL_VALUES = ("failed", "failure", "error", "errored", "canceled", "cancelled", "aborted")
"""Statuses that mean a failure at every service. `rejected` is not one of them: it may be a decision, and so a result."""
_MAX_VALUES = 32
_MAX_VALUE_LENGTH = 128
_HEADER_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]{1,128}")
_RESERVED_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect"}
)
_OPTIONAL = frozenset({"runningValues", "resultUrlTemplate", "progressPath", "headers"})

LOCATION_POLLING = PollConfig(
    url_template="{startResult.headers.location}",
    status_path="status",
    done_values=(),
    fail_values=(*COMMON_FAIL_VALUES, "rejected"),
    running_values=(
        "accepted", "in-progress", "in_progress", "inprogress", "not_started", "notstarted", "pending", "processing", "queued",
        "running", "scheduled", "started", "starting", "submitted", "waiting", "working",
    ),
)  # fmt: skip
"""How the `Location` of a 202 is polled without configuration (docs/reference/protocols/asyncqueue.md, "Extensions").

202 means that the work is not finished, any other 2xx that it succeeded, unless a common word in `status` means something else.
"""


def status_key(value: Any) -> str | None:
    """The form in which statuses are compared: strings in one case, numbers and booleans as JSON; None if it is no status."""
    if isinstance(value, str):
        return value.casefold()
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    return None


def status_keys(values: tuple[StatusValue, ...]) -> frozenset[str | None]:
    """The statuses in the form in which they are compared."""
    return frozenset(map(status_key, values))


def parse_poll_config(given: Any) -> PollConfig:
    """Read the `pollConfig` of a task. Raises `BadRequest` that names the field, what is wrong with it and what is allowed."""
    try:
        config = msgspec.convert(given, PollConfig)
    except msgspec.ValidationError as error:
        raise BadRequest(f"pollConfig: {_field_first(str(error))}") from None
    check_template("pollConfig.urlTemplate", config.url_template)
    if config.result_url_template is not None:
        check_template("pollConfig.resultUrlTemplate", config.result_url_template)
    check_path("pollConfig.statusPath", config.status_path)
    check_path("pollConfig.resultPath", config.result_path)
    check_path("pollConfig.errorPath", config.error_path)
    check_path("pollConfig.progressPath", config.progress_path or "")
    _check_values(config)
    _check_headers(config.headers)
    _check_seconds("interval", config.interval, MIN_INTERVAL, MAX_INTERVAL)
    _check_seconds("maxDuration", config.max_duration, MIN_INTERVAL, MAX_DURATION)
    return config


def _field_first(error: str) -> str:
    """The text of a msgspec error with the field in front: `interval: Expected `float`, got `str``."""
    text, _, path = error.partition(" - at `$")
    field = path.strip("`.")
    return f"{field}: {text}" if field else text


def _check_values(config: PollConfig) -> None:
    lists = {"doneValues": config.done_values, "failValues": config.fail_values, "runningValues": config.running_values}
    for name, values in lists.items():
        if len(values) > _MAX_VALUES or any(len(str(value)) > _MAX_VALUE_LENGTH for value in values):
            raise BadRequest(f"pollConfig.{name} takes at most {_MAX_VALUES} values of at most {_MAX_VALUE_LENGTH} characters")
    if not config.done_values and not config.running_values:
        raise BadRequest("pollConfig.doneValues is empty, so the task would never complete; add a status, e.g. ['completed']")
    if shared := status_keys(config.done_values) & status_keys(config.fail_values):
        raise BadRequest(f"pollConfig: {min(map(str, shared))!r} is both in doneValues and in failValues; remove one of them")


def _check_seconds(name: str, seconds: float, least: float, most: float) -> None:
    if not least <= seconds <= most:
        raise BadRequest(f"pollConfig.{name} is {seconds:g}; it must be from {least:g} to {most:g} seconds")


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _RESERVED_HEADERS:
            raise BadRequest(
                f"pollConfig.headers: {name[:64]!r} is not a valid header name, or the queue sets this header itself"
            )
        if not value.isprintable() or not value.isascii() or len(value) > 2048:
            raise BadRequest(f"pollConfig.headers: the value of {name} must be at most 2048 printable ASCII characters")
    size = sum(len(name) + len(value) + 4 for name, value in headers.items())
    if size > MAX_HEADER_BYTES:
        raise BadRequest(f"pollConfig.headers has {size} bytes; at most {MAX_HEADER_BYTES} are allowed")


def is_relative(config: PollConfig) -> bool:
    """Whether one of the templates is relative, so that it needs an absolute `targetUrl`."""
    return any(not template.startswith(("{", "http")) for template in (config.url_template, config.result_url_template or "{"))


def poll_host(config: PollConfig, target: str) -> str:
    """Origin of the first URL that is polled; that of the `targetUrl` if only the target's response names the URL."""
    origin = origin_of(config.url_template) or origin_of(target)
    return "" if origin is None else f"{origin.scheme}://{origin.netloc_with_port}"


def without_secrets(config: PollConfig) -> PollConfig:
    """The same configuration with its header values hidden."""
    return config.replace(headers=dict.fromkeys(config.headers, HIDDEN)) if config.headers else config


def render_poll_config(config: PollConfig) -> dict[str, Any]:
    """The configuration as JSON: AsyncQueue's fields always, the fields that this project adds only if they are set."""
    fields: dict[str, Any] = msgspec.to_builtins(config)
    return {name: value for name, value in fields.items() if name not in _OPTIONAL or value}
