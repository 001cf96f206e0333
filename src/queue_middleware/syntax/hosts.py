"""One canonical form of hosts, so that a host is the same one however it is written.

Lower case, no dot at the end, labels of other alphabets in ASCII (IDNA 2008, as the HTTP client has it), IPv6 addresses without
brackets in the form of RFC 5952. Everything that compares hosts compares these: allow-lists, keys of callbacks, receivers,
origins. Pure; whether a host may be connected to is for `guard` to say.
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
    """Scheme, canonical host and port of an address; the port is always there (RFC 6454 §4)."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """Host and port as they stand in a URL; the port where it is not the scheme's, an IPv6 address in brackets."""
        full = self.netloc_with_port
        return full.rpartition(":")[0] if self.port == _PORTS[self.scheme] else full

    @property
    def netloc_with_port(self) -> str:
        """The same, always with the port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """As browsers write it."""
        return f"{self.scheme}://{self.netloc}"


@lru_cache(maxsize=512)
def canonical_host(host: str) -> str:
    """The canonical form of a host without a port; what cannot be one is only put in lower case."""
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
    """Origin of a URL; None for what is no address of the web."""
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
    """The canonical host of a URL; empty for what is no address of the web."""
    origin = origin_of(url)
    return origin.host if origin else ""


def canonical_authority(text: str) -> str:
    """The same of a host that may be followed by a port, which stays as it is; IPv6 addresses in brackets."""
    name, port = _AUTHORITY.fullmatch(text).groups()  # type: ignore[union-attr]  # it matches everything
    host = canonical_host(name)
    return (f"[{host}]" if ":" in host and "/" not in host else host) + port


def matches_any(host: str, allowed: Iterable[str]) -> bool:
    """Whether a host is one of these, or ends with one that is written `*.suffix`. `allowed` are canonical."""
    host = canonical_host(host)
    return any(host == entry or (entry.startswith("*.") and host.endswith(entry[1:])) for entry in allowed)


def canonical_pattern(entry: str) -> str:
    """The canonical form of a host or a `*.suffix`."""
    return f"*.{canonical_host(entry[2:])}" if entry.startswith("*.") else canonical_host(entry)
