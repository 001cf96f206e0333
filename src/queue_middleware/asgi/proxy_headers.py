"""Headers that an application believes because the proxy in front of it sets them: where a client is, and which one it is.

A proxy sets or removes these headers of each request that passes through it. Headers that arrive inside a request's body, as
those of a task do, pass through no proxy, so they must not be among these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

Pairs = tuple[tuple[bytes, bytes], ...]

_CLIENT = (
    # Address, scheme and host of the client's own connection.
    "forwarded",  # RFC 7239
    "x-forwarded", "x-forwarded-*", "forwarded-for",  # nginx, Apache, HAProxy, Traefik, Caddy; oauth2-proxy's -User, -Email
    "x-original-forwarded-for", "x-original-host",  # ingress-nginx; Azure Application Gateway
    "x-real-*", "client-ip", "x-client-ip", "x-cluster-client-ip", "x-originating-ip", "proxy-client-ip", "x-proxyuser-ip",
    "x-scheme", "x-url-scheme", "x-host", "front-end-https", "wl-proxy-*",
    "true-client-ip", "akamai-*", "x-akamai-*",  # Akamai, Cloudflare Enterprise
    "cf-*",  # Cloudflare: CF-Connecting-IP, CF-Visitor, Cf-Access-Jwt-Assertion, Cf-Access-Authenticated-User-Email
    "fastly-*", "fly-client-ip", "fly-forwarded-*", "x-nf-client-connection-ip",
    "x-vercel-forwarded-for", "x-vercel-proxied-for", "x-vercel-ip-*",
    "x-azure-clientip", "x-azure-socketip", "x-azure-fdid", "x-arr-ssl",  # Azure Front Door, App Service
    "cloudfront-*", "x-amz-cf-*", "x-amzn-*",  # AWS: CloudFront; load balancers' X-Amzn-Oidc-* and X-Amzn-Mtls-*
    "x-envoy-*",  # X-Envoy-Internal, X-Envoy-External-Address
    # That a call comes from the platform itself.
    "x-appengine-*", "x-cloudtasks-*", "x-cloudscheduler*",  # Google Cloud
    # The certificate that a proxy has checked.
    "client-cert", "client-cert-chain",  # RFC 9440
    "x-client-cert*", "x-client-verify", "x-client-dn", "ssl-client-*", "x-ssl-*", "x-arr-clientcert",
    # The user whom a proxy has authenticated.
    "remote-*", "x-remote-*",  # Apache, Authelia; Kubernetes: X-Remote-User, -Group, -Extra-*
    "x-webauth-*",  # Grafana's auth proxy
    "x-auth-request-*",  # oauth2-proxy
    "x-authenticated-*", "x-consumer-*", "x-credential-*", "x-anonymous-consumer", "x-userinfo",  # Kong
    "x-authentik-*", "x-pomerium-*", "tailscale-*", "teleport-jwt-assertion",
    "x-goog-authenticated-user-*", "x-goog-iap-jwt-assertion",  # Google Identity-Aware Proxy
    "x-ms-client-principal*", "x-ms-token-*",  # Azure App Service authentication
)  # fmt: skip
"""Who calls, from where. `*` at the end stands for anything."""

_TARGET = (
    "x-original-*", "x-rewrite-*", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-path", "x-envoy-original-*",
)  # fmt: skip
"""What was called, as the proxy saw it."""


class ProxyHeaders:
    """The headers of the table and `further` ones; `allowed` are those that tasks may set all the same.

    Both are names in lower case; a `*` at the end of one stands for anything.
    """

    def __init__(self, further: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
        self._is_of_client = _matcher((*_CLIENT, *further))
        self._is_allowed = _matcher(allowed)

    def is_reserved(self, name: bytes) -> bool:
        """Whether a task may not set this header. `name` in lower case."""
        return (self._is_of_client(name) or _is_of_target(name)) and not self._is_allowed(name)

    def is_set_by_proxies(self, name: bytes) -> bool:
        """Whether a proxy sets this header, allowed to tasks or not. `name` in lower case."""
        return self._is_of_client(name) or _is_of_target(name)

    def about_client(self, headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
        """What the proxies have said about the client of a call. The target that they name is only that call's own."""
        return tuple(pair for pair in headers if self._is_of_client(pair[0]) and not _is_of_target(pair[0]))


def _matcher(patterns: Iterable[str]) -> Callable[[bytes], bool]:
    names, prefixes = set(), []
    for pattern in patterns:
        if pattern.endswith("*"):
            prefixes.append(pattern[:-1].encode("ascii"))
        else:
            names.add(pattern.encode("ascii"))
    known, beginnings = frozenset(names), tuple(prefixes)
    return lambda name: name in known or name.startswith(beginnings)


_is_of_target_listed = _matcher(_TARGET)
_STANDARD = ProxyHeaders()


def _is_of_target(name: bytes) -> bool:
    # Two that begin like the others speak of the client's connection.
    return _is_of_target_listed(name) and name not in (b"x-original-forwarded-for", b"x-original-host")


@lru_cache(maxsize=512)
def is_set_by_proxies(name: bytes) -> bool:
    """Whether the table has this name, in lower case."""
    return _STANDARD.is_set_by_proxies(name)
