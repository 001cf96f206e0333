"""Converts hosts to one canonical form, so that a host is recognized however it is written.

Lower case, no trailing dot, labels of other alphabets in ASCII (IDNA 2008, as in the HTTP client), IPv6 addresses without
brackets in the form of RFC 5952. Everything that compares hosts compares these: allow-lists, keys of callbacks, receivers,
origins. Pure; `outbound.guard` decides whether a host may be called.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

import idna

_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:]*|.*?)((?::[0-9]*)?)", re.DOTALL)
_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, canonical host and port of a URL; the port is always set (RFC 6454 §4)."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """Host and port as in a URL: without the default port of the scheme, IPv6 addresses in brackets."""
        full = self.netloc_with_port
        return full.rpartition(":")[0] if self.port == _PORTS[self.scheme] else full

    @property
    def netloc_with_port(self) -> str:
        """Host and port as in a URL, always with the port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """The origin as browsers write it."""
        return f"{self.scheme}://{self.netloc}"


@lru_cache(maxsize=512)
def canonical_host(host: str) -> str:
    """The canonical form of a host without a port; an invalid host is only converted to lower case."""
    host = host.strip("[]").lower()
    if not host.isascii():
        try:
            host = idna.encode(host).decode("ascii")
        except idna.IDNAError:
            return host
    host = host.removesuffix(".")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


@lru_cache(maxsize=512)
def origin_of(url: str) -> Origin | None:
    """The origin of an http or https URL; None for any other text."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if not parts.hostname or scheme not in _PORTS:
        return None
    return Origin(scheme, canonical_host(parts.hostname), _PORTS[scheme] if port is None else port)


def host_of(url: str) -> str:
    """The canonical host of an http or https URL; empty for any other text."""
    origin = origin_of(url)
    return origin.host if origin else ""


def canonical_authority(text: str) -> str:
    """The canonical form of a host with an optional port, which is not changed; IPv6 addresses in brackets."""
    name, port = _AUTHORITY.fullmatch(text).groups()  # type: ignore[union-attr]  # it matches everything
    host = canonical_host(name)
    return (f"[{host}]" if ":" in host and "/" not in host else host) + port


def matches_any(host: str, allowed: Iterable[str]) -> bool:
    """Whether a host equals an entry or ends with an entry `*.suffix`. `allowed` are canonical."""
    return matching_entry(host, allowed) is not None


def matching_entry(host: str, allowed: Iterable[str]) -> str | None:
    """The first entry that a host equals, or whose suffix it ends with; None without one. `allowed` are canonical."""
    host = canonical_host(host)
    return next((e for e in allowed if host == e or (e.startswith("*.") and host.endswith(e[1:]))), None)


def canonical_pattern(entry: str) -> str:
    """The canonical form of a host or a `*.suffix`."""
    return f"*.{canonical_host(entry[2:])}" if entry.startswith("*.") else canonical_host(entry)
