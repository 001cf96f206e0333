"""Parsers from the text or object given for an option to its value. Each raises `SettingsError` for what it cannot parse."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping

from .errors import InvalidWebhook, SettingsError
from .syntax.durations import parse_duration, parse_schedule
from .syntax.hosts import canonical_authority, canonical_pattern, origin_of
from .syntax.urls import encode_url

_SIZES = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


_LARGEST = 2**53
"""Integers up to this one are exact in databases, JSON and other languages."""
_LONGEST = 36525 * 86400.0
"""A hundred years, in seconds; times are kept as milliseconds in 64 bits."""


def parse_size(value: object) -> int:
    """Bytes from `1048576`, `"10 MiB"` or `"2GB"`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value)
    match = re.fullmatch(r"(\d+)\s*([a-z]*)", str(value).strip().lower())
    if not match or match[2] not in _SIZES:
        raise SettingsError(f"{value!r} is not a size; write bytes or a number with KiB, MiB or GiB, e.g. '10 MiB'")
    return _bounded(int(match[1].lstrip("0")[:20] or "0") * _SIZES[match[2]])


def parse_seconds(value: object) -> float:
    """Seconds from `20`, `"5s"` or `"30m"`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{value!r} is not a duration")
        return float(_no_longer(value))
    return _no_longer(parse_duration(str(value)))


def parse_integer(value: object) -> int:
    """A non-negative integer."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value)
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal():
        return _bounded(int(value.strip().lstrip("0")[:20] or "0"))
    raise SettingsError(f"{value!r} is not a whole number")


def parse_words(value: object) -> tuple[str, ...]:
    """Words from a string with commas, or from a list."""
    if isinstance(value, str):
        return tuple(word for part in value.split(",") if (word := part.strip()))
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        words = tuple(value)
        if all(isinstance(word, str) for word in words):
            return words
    raise SettingsError(f"{_kind_of(value)} is not a list of words")


def _kind_of(value: object) -> str:
    """What a value of the wrong type is called in an error. It is not shown: it may be a secret, e.g. as `bytes`."""
    return repr(value) if value is None or value == "" else f"a value of type {type(value).__name__}"


def parse_waits(value: object) -> tuple[float, ...]:
    """Seconds from `"5s, 5m"`, from a list of durations, or from one duration."""
    if isinstance(value, str):
        return tuple(map(_no_longer, parse_schedule(value)))
    waits = tuple(parse_seconds(wait) for wait in value) if isinstance(value, Iterable) else (parse_seconds(value),)
    if any(wait < 0 for wait in waits):
        raise SettingsError(f"{value!r} contains a negative duration")
    return waits


def _bounded(number: int) -> int:
    if number > _LARGEST:
        raise SettingsError(f"a number above {_LARGEST} is too large")
    return number


def _no_longer(seconds: float) -> float:
    if seconds > _LONGEST:
        raise SettingsError("a duration cannot be longer than a hundred years")
    return seconds


def parse_text(value: object) -> str:
    """A string or a path, not empty."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise SettingsError(f"{_kind_of(value)} is not a non-empty string")
    return str(value)


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def parse_database(value: object) -> str:
    """A path, or `sqlite:///path`, as written."""
    text = parse_text(value)
    path_of_database(text)
    return text


def path_of_database(text: str) -> str:
    """The path in the option `database`: relative after three slashes, absolute after four."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "sqlite":
        raise SettingsError(f"{scheme}://… is not supported; write a path or sqlite:///path")
    if separator and re.search("[?#]", rest):
        raise SettingsError(f"{text!r} has parameters, which sqlite:/// does not take here; write only the path")
    path = text if not separator else "/" + rest.lstrip("/") if rest.startswith("//") else rest.removeprefix("/")
    if not path.strip() or path == ":memory:" or path.startswith("file:"):
        raise SettingsError(
            f"{text!r} is not the path of a file; accepted requests have to survive the process, so write e.g. 'queue.sqlite3'"
        )
    if _CONTROL.search(path) or path.endswith("/"):
        raise SettingsError(f"{text!r} is not the path of a file; write e.g. 'queue.sqlite3'")
    return path


def parse_name(value: object) -> str:
    """The name of an application: 1 to 128 printable characters."""
    if not isinstance(value, str) or not 0 < len(value.strip()) <= 128 or not value.isprintable():
        raise SettingsError(f"{value!r} is not a name; write 1 to 128 characters, e.g. 'pictures'")
    return value.strip()


def parse_key_or_path(value: object) -> str:
    """Seeds, or the path of a file with seeds; `~` is the home folder."""
    text = parse_text(value)
    return os.path.expanduser(text) if text.startswith("~") else text  # noqa: PTH111 - unchanged if there is no home folder


def parse_patterns(value: object) -> tuple[str, ...]:
    """Path patterns; each begins with a slash or a wildcard."""
    patterns = parse_words(value)
    for pattern in patterns:
        if pattern[:1] not in ("/", "*", "?", "["):
            raise SettingsError(
                f"the pattern {pattern!r} matches no path, because paths begin with a slash; write '/{pattern}'"
            )
    return patterns


def parse_flag(value: object) -> bool:
    """A boolean from `true`, `yes`, `on`, `1` or `false`, `no`, `off`, `0`."""
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if (flag := words.get(str(value).strip().lower())) is None:
        raise SettingsError(f"{value!r} is neither true nor false")
    return flag


def parse_prefix(value: object) -> str:
    """A path such as `/fal/queue`; slashes at both ends are optional."""
    prefix = "/" + str(value).strip("/")
    if not isinstance(value, str) or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix) or {".", ".."} & set(prefix.split("/")):
        raise SettingsError(f"{value!r} is not a prefix; write a path of plain words, e.g. '/fal/queue'")
    return prefix


def parse_hosts(value: object) -> tuple[str, ...]:
    """Host names, with or without a port."""
    hosts = tuple(canonical_authority(word) for word in parse_words(value))
    for host in hosts:
        if not re.fullmatch(r"([a-z0-9_]([a-z0-9_.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", host):
            raise SettingsError(f"{host!r} is not a host name; write e.g. 'queue.example.com', with or without a port")
    return hosts


def parse_app(value: object) -> str:
    """`owner/alias`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._~-]*/[A-Za-z0-9][A-Za-z0-9._~-]*", str(value)):
        raise SettingsError(f"{value!r} is not an app; write its owner and its alias, e.g. 'acme/pictures'")
    return str(value)


def parse_origins(value: object) -> tuple[str, ...]:
    """Origins as browsers send them, or `*`."""
    origins = tuple(_canonical_origin(word.lower().removesuffix("/")) for word in parse_words(value))
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s*]+", origin):
            raise SettingsError(f"{origin!r} is not an origin; write e.g. 'https://app.example.com', or '*' for all")
    return origins


def _canonical_origin(word: str) -> str:
    """As browsers send it, if it is the origin of a web page."""
    origin = origin_of(word) if re.fullmatch(r"https?://[^/?#@\s*]+", word) else None
    return word if origin is None else str(origin)


def parse_hosts_or_suffixes(value: object) -> tuple[str, ...]:
    """Host names, and `*.suffix`."""
    words = tuple(canonical_pattern(word) for word in parse_words(value))
    for word in words:
        if not re.fullmatch(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9])?|[0-9a-f:.]+", word):
            raise SettingsError(f"{word!r} is not a host or '*.suffix'; write it without scheme and port, e.g. 'queue.fal.run'")
    return words


def parse_header_names(value: object) -> tuple[str, ...]:
    """Header names; a trailing `*` matches any suffix."""
    names = tuple(word.lower() for word in parse_words(value))
    for name in names:
        if not re.fullmatch(r"[!#$%&'+.^`|~0-9a-z-]+\*?", name):
            raise SettingsError(f"{name!r} is not a header name; write e.g. 'X-Forwarded-Host' or 'X-Internal-*'")
    return names


def parse_crash(value: object) -> str:
    """`retry` or `fail`."""
    return _one_of(value, "retry", "fail")


def parse_keep_requests(value: object) -> str:
    """The values of `jobs.kept_requests.KeepRequests`."""
    return _one_of(value, "none", "failed", "all")


def _one_of(value: object, *choices: str) -> str:
    if value not in choices:
        raise SettingsError(f"{value!r} is not one of {', '.join(map(repr, choices))}")
    return str(value)


def parse_tracing(value: object) -> str:
    """`link` or `parent`."""
    return _one_of(value, "link", "parent")


def parse_public_url(value: object) -> str:
    """The base of URLs, without a trailing slash."""
    text = str(value).rstrip("/")
    if re.fullmatch(r"https?://[^/?#@\s]+(/[^?#]*)?", text):
        try:
            text = encode_url(text, "it")
        except InvalidWebhook as error:
            raise SettingsError(f"{value!r} is not a base URL: {error.detail}") from None
    else:
        raise SettingsError(f"{value!r} is not a base URL; write e.g. 'https://api.example.com'")
    return text
