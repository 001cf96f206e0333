"""How a service is asked whether it is done: the `pollConfig` of a task, read, checked and written (AsyncQueue contract)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from queue_middleware.errors import BadRequest
from queue_middleware.headers import LARGEST_BLOCK
from queue_middleware.taskspec import PollConfig, Word

from .templates import check_path, check_template

LEAST_INTERVAL = 0.1
LONGEST_INTERVAL = 3600.0
LONGEST_DURATION = 7 * 86400.0
HIDDEN = "***"
"""Stands for the value of a header, which may be a key."""
_MOST_VALUES = 32
_LONGEST_VALUE = 128
_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]{1,128}")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect"})
_OPTIONAL = frozenset({"runningValues", "resultUrlTemplate", "progressPath", "headers"})


def spelled(value: Any) -> str | None:
    """A status as it is compared: text without regard to case, numbers and booleans as JSON spells them; None for no status."""
    if isinstance(value, str):
        return value.casefold()
    if isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    return None


def words(values: tuple[Word, ...]) -> frozenset[str | None]:
    """Statuses as they are compared."""
    return frozenset(map(spelled, values))


def read_poll_config(given: Any) -> PollConfig:
    """Read the `pollConfig` of a task. Raises `BadRequest` that names the field, what is wrong and what it takes."""
    try:
        config = msgspec.convert(given, PollConfig)
    except msgspec.ValidationError as error:
        raise BadRequest(f"pollConfig: {_told(str(error))}") from None
    check_template("pollConfig.urlTemplate", config.url_template)
    if config.result_url_template is not None:
        check_template("pollConfig.resultUrlTemplate", config.result_url_template)
    check_path("pollConfig.statusPath", config.status_path)
    check_path("pollConfig.resultPath", config.result_path)
    check_path("pollConfig.errorPath", config.error_path)
    check_path("pollConfig.progressPath", config.progress_path or "")
    _check_values(config)
    _check_headers(config.headers)
    _check_seconds("interval", config.interval, LEAST_INTERVAL, LONGEST_INTERVAL)
    _check_seconds("maxDuration", config.max_duration, LEAST_INTERVAL, LONGEST_DURATION)
    return config


def _told(error: str) -> str:
    """The words of msgspec with the field in front: `interval: Expected `float`, got `str``."""
    text, _, place = error.partition(" - at `$")
    field = place.strip("`.")
    return f"{field}: {text}" if field else text


def _check_values(config: PollConfig) -> None:
    lists = {"doneValues": config.done_values, "failValues": config.fail_values, "runningValues": config.running_values}
    for name, values in lists.items():
        if len(values) > _MOST_VALUES or any(len(str(value)) > _LONGEST_VALUE for value in values):
            raise BadRequest(f"pollConfig.{name} takes at most {_MOST_VALUES} values of at most {_LONGEST_VALUE} characters")
    if not config.done_values and not config.running_values:
        raise BadRequest("pollConfig.doneValues is empty, so it would never be done; name a status, e.g. ['completed']")
    if twice := words(config.done_values) & words(config.fail_values):
        raise BadRequest(f"pollConfig: {min(map(str, twice))!r} is both in doneValues and in failValues")


def _check_seconds(name: str, seconds: float, least: float, most: float) -> None:
    if not least <= seconds <= most:
        raise BadRequest(f"pollConfig.{name} is {seconds:g}; it takes seconds from {least:g} to {most:g}")


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or name.lower() in _OURS:
            raise BadRequest(f"pollConfig.headers: {name[:64]!r} is no header that can be set here")
        if not value.isprintable() or not value.isascii() or len(value) > 2048:
            raise BadRequest(f"pollConfig.headers: the value of {name} takes up to 2048 printable characters of ASCII")
    size = sum(len(name) + len(value) + 4 for name, value in headers.items())
    if size > LARGEST_BLOCK:
        raise BadRequest(f"pollConfig.headers takes {LARGEST_BLOCK} bytes in all; these are {size}")


def is_relative(config: PollConfig) -> bool:
    """Whether one of its templates needs a `targetUrl` that it can be relative to."""
    return any(not template.startswith(("{", "http")) for template in (config.url_template, config.result_url_template or "{"))


def without_secrets(config: PollConfig) -> PollConfig:
    """The same with the names of its headers only."""
    return config.replace(headers=dict.fromkeys(config.headers, HIDDEN)) if config.headers else config


def shown_poll_config(config: PollConfig) -> dict[str, Any]:
    """As it is shown: what AsyncQueue shows always, and of what we have added what is set."""
    shown: dict[str, Any] = msgspec.to_builtins(config)
    return {name: value for name, value in shown.items() if name not in _OPTIONAL or value}
