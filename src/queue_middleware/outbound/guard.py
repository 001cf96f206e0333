"""Decides which hosts the client may call, so that no request reaches a private address, however it is written.

Pure: checks the text of a URL, and each address that a name resolves to. The caller must check both before it connects.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

import httpx

from queue_middleware.errors import InvalidWebhook, OutboundRefused, SettingsError
from queue_middleware.syntax.hosts import canonical_host, canonical_pattern
from queue_middleware.syntax.urls import encode_url, split_plain

WEBHOOK = "the webhook URL"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# `ipaddress.is_global` is not used: it lets multicast, NAT64, 6to4 and IPv4 inside IPv6 through, and changes between Pythons.
_DENIED = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # this host (RFC 791)
            "10.0.0.0/8",  # private (RFC 1918)
            "100.64.0.0/10",  # carrier-grade NAT (RFC 6598), some clouds' metadata
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's host, from inside every virtual machine there
            "169.254.0.0/16",  # link-local, most clouds' metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # IETF protocol assignments, Oracle's metadata
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
            "2001::/23",  # IETF protocol assignments: Teredo, ORCHID, benchmarks
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: any IPv4 address inside
            "3fff::/20",  # documentation
        ),
    )
)
# The rest of IPv6 is special, unassigned or private: loopback, IPv4 inside IPv6, NAT64, unique local, site-local, multicast.
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")

_AUTHORITY = re.compile(r"[^:]*://([^/?#]*)")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_-]+", re.IGNORECASE)
_MAX_LABEL, _MAX_NAME = 63, 253
"""RFC 1035 §2.3.4, in ASCII, without the dot at the end."""
_PORT = re.compile(r"(?:\]|[^:\]]):([^:\]]*)$")
_ALLOWED_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)
_LOCAL_SUFFIXES = (".localhost", ".localdomain", ".local", ".internal", ".intranet", ".lan", ".home.arpa")


class Guard:
    """The addresses that may be called. `allow` opens hosts, `*.suffix` and networks, including private ones and plain http.

    Raises `SettingsError` for any other entry.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._names: set[str] = set()
        self._suffixes: list[str] = []
        self._networks: list[_Network] = []
        for entry in allow:
            self._open(canonical_pattern(entry.strip()))
        # The same few hosts come again and again. One that is refused is not cached.
        self._check_origin = lru_cache(maxsize=512)(self._check_url)

    def check_url(self, url: str, field: str = WEBHOOK) -> None:
        """Check the text of a URL without resolving its name. Raises `InvalidWebhook`, whose message names it by `field`."""
        plain = split_plain(url)
        if plain is None:
            self._check_url(url, field)
        else:
            self._check_origin(plain[0], field)

    def _check_url(self, url: str, field: str) -> None:
        parsed = parse_url(url, field)
        host = canonical_host(parsed.raw_host.decode("ascii"))
        literal = _literal(host)
        if self._allows(host, literal):
            return
        if literal is not None and _is_denied(literal):
            raise InvalidWebhook(f"{field} names {host}, which is not a public address; {_allow(host)}")
        if literal is None and _is_local(host):
            raise InvalidWebhook(f"{field} names {host}, a host of the local network; {_allow(host)}")
        if parsed.scheme != "https":
            raise InvalidWebhook(f"{field} must begin with https://; for plain http {_allow(host)}")

    def check_address(self, host: str, address: str) -> None:
        """Check one address that `host` resolves to. Raises `OutboundRefused`, which does not repeat the address."""
        found, host = ipaddress.ip_address(address), canonical_host(host)
        if _is_denied(found) and not self._allows(host, found):
            raise OutboundRefused(f"{host} has an address that is not public; {_allow(host)}")

    def is_allowed_by_operator(self, host: str) -> bool:
        """Whether `host` may be reachable only because of `outbound_allow`, and so be part of the operator's own network."""
        host = canonical_host(host)
        literal = _literal(host)
        # Which address a name has is known only when it is resolved; it may lie in one of the allowed networks.
        return self._allows(host, literal) or (literal is None and bool(self._networks))

    def _open(self, entry: str) -> None:
        if _NUMBER.fullmatch(entry.rpartition(".")[2]) or "/" in entry or ":" in entry:
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError as error:
                raise SettingsError(
                    f"outbound_allow: {entry!r} is not a network ({error}); for a host write only the name, e.g. 'localhost', "
                    "without scheme and port"
                ) from None
        elif not _ALLOWED_NAME.fullmatch(entry):
            raise SettingsError(f"outbound_allow: {entry!r} is not a host, '*.suffix' or network; write no scheme and no port")
        elif entry.startswith("*."):
            self._suffixes.append(entry[1:])
        else:
            self._names.add(entry)

    def _allows(self, host: str, address: _Address | None) -> bool:
        if host in self._names or any(host.endswith(suffix) for suffix in self._suffixes):
            return True
        return address is not None and any(address in network for network in self._networks)


def parse_url(url: str, field: str = WEBHOOK) -> httpx.URL:
    """Parse a URL; the same result is checked and called. Raises `InvalidWebhook`, whose message names the URL by `field`."""
    encoded = encode_url(url, field)
    authority = _AUTHORITY.match(encoded)
    try:
        parsed = httpx.URL(encoded)
    except httpx.InvalidURL as error:
        raise InvalidWebhook(f"{field} cannot be read: {error}") from None
    port = _PORT.search(authority[1]) if authority else None
    if (port is not None and not port[1].isascii()) or (parsed.port is not None and not 0 < parsed.port < 65536):
        raise InvalidWebhook(f"{field} has a port that does not exist")
    _check_host(parsed.raw_host.decode("ascii"), field)
    try:
        parsed.host  # noqa: B018  # later readers need not handle the error
    except UnicodeError:
        raise InvalidWebhook(f"{field} has no valid host name") from None
    return parsed


def _check_host(host: str, field: str) -> None:
    literal, name = _literal(host), host.removesuffix(".")
    if "%" in host or (literal is None and not all(map(_LABEL.fullmatch, name.split(".")))):
        raise InvalidWebhook(f"{field} has no valid host name")
    if literal is None and (len(name) > _MAX_NAME or max(map(len, name.split("."))) > _MAX_LABEL):
        raise InvalidWebhook(
            f"{field} has a host name that is too long; at most {_MAX_NAME} characters, and {_MAX_LABEL} between dots"
        )
    if literal is None and _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        # Resolvers read 2130706433, 0x7f000001, 0177.0.0.1 and 127.1 as addresses; they are not written like this otherwise.
        raise InvalidWebhook(f"{field} writes an address in an unusual way; write four decimal numbers")


def _allow(host: str) -> str:
    """The option that allows the host. The submitter reads it too: it contains nothing that the URL does not."""
    return f'the operator allows it with outbound_allow="{host}" (QUEUE_OUTBOUND_ALLOW={host})'


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host.removesuffix("."))
    except ValueError:
        return None


def _is_denied(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address not in _PUBLIC_V6):
        return True
    return any(address in network for network in _DENIED)


def _is_local(host: str) -> bool:
    return "." not in host or host.endswith(_LOCAL_SUFFIXES)
