"""Which webhooks are sent: one table, through the guarded client, down to the address that is connected to.

The resolver and the network are fakes: each address that is connected to is recorded, and a server on loopback responds.
The tests do not depend on how the client is built. They run in an environment whose proxies are unreachable.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest
import trustme

from queue_middleware.errors import InvalidWebhook, OutboundError, OutboundRefused
from queue_middleware.outbound.client import HTTPClient
from queue_middleware.outbound.guard import Guard
from tests.support.ssrf_cases import ADJACENT_PUBLIC, HANGS, METADATA, TEXT, TIME, Case, table


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in table()])
async def test_the_guard(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard(case.allow)
    if case.ends == TEXT:
        with pytest.raises(InvalidWebhook):
            guard.check_url(case.url)
    else:
        guard.check_url(case.url)
    async with network(case, monkeypatch) as seen:
        options: dict[str, Any] = {"resolver": seen.resolve, "ssl_context": trusting()}
        async with HTTPClient(guard, 0.05 if case.ends == TIME else 10.0, **options) as outbound:
            for _ in range(case.posts - 1):
                assert (await outbound.post(case.url, (), b"")).status == 200
            before = len(seen.connected)
            if isinstance(case.ends, str):
                with pytest.raises(OutboundError if case.ends == TIME else OutboundRefused):
                    await outbound.post(case.url, (), b"{}")
            else:
                assert (await outbound.post(case.url, (), b"{}")).status == case.status
    if isinstance(case.ends, str):
        assert seen.connected[before:] == []
        assert case.ends != TEXT or seen.resolved == []
    else:
        assert seen.connected == list(case.ends)
        assert len(seen.resolved) <= 1, "resolved once: the address that was checked is the one that is connected to"
        seen.check_names(case.url)


class Network:
    """The names that were resolved, the addresses that were connected to, and the host names that were used."""

    def __init__(self, case: Case) -> None:
        self.resolved: list[str] = []
        self.connected: list[str] = []
        self.hosts: list[str] = []
        self.sni: list[str | None] = []
        self._case = case
        self._answers = list(case.answers)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        literal = host.strip("[]")
        if literal in ADJACENT_PUBLIC or literal in str(self._case.ends):
            return [literal]  # as the system's resolver does
        self.resolved.append(host)
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if addresses is HANGS:
            return await asyncio.Future()
        return addresses

    async def refuse(self, protocol: Any, host: str, port: int, **options: Any) -> Any:
        self.connected.append(f"{host}:{port}")
        raise ConnectionRefusedError

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to one request as the case says and close: the next call connects anew."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            self.hosts += [line.removeprefix("host: ") for line in head if line.startswith("host: ")]
            location = f"Location: http://{METADATA}/\r\n" if self._case.status >= 300 else ""
            writer.write(f"HTTP/1.1 {self._case.status} X\r\n{location}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        finally:
            writer.close()

    def check_names(self, url: str) -> None:
        """The receiver is called by the name in the URL, by TLS as well: the certificate was verified for it."""
        scheme, _, rest = url.lower().partition("://")
        authority = rest.partition("/")[0].encode("idna").decode()
        host = authority.removesuffix(":443").removesuffix(":")
        assert [seen.removesuffix(":443") for seen in self.hosts] == [host]
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        is_literal = name.startswith("[") or name.replace(".", "").isdigit()
        assert self.sni == ([] if scheme == "http" else [None if is_literal else name])


@asynccontextmanager
async def network(case: Case, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    """Every connection of this event loop goes to a server on loopback."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for spelled in (name, name.lower()):
            monkeypatch.setenv(spelled, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    seen, loop = Network(case), asyncio.get_running_loop()
    connect = loop.create_connection
    monkeypatch.setattr(loop, "create_connection", seen.refuse)
    if isinstance(case.ends, str) and case.posts == 1:
        yield seen  # nothing has to listen there
        return
    context = serving(seen) if case.url.lower().startswith("https") else None
    server = await asyncio.start_server(seen.serve, "127.0.0.1", 0, ssl=context)

    async def elsewhere(protocol: Any, host: str, port: int, **options: Any) -> Any:
        seen.connected.append(f"{host}:{port}")
        return await connect(protocol, "127.0.0.1", server.sockets[0].getsockname()[1], **options)

    async with server:
        monkeypatch.setattr(loop, "create_connection", elsewhere)
        yield seen


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def certificate() -> trustme.LeafCert:
    """A certificate for the names of all cases that may be called, and for no other."""
    return authority().issue_cert("example.com", "*.example.com", "redis", *ADJACENT_PUBLIC, "fd00::7", "127.0.0.1", "::1")


def serving(seen: Network) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate().configure_cert(context)
    context.sni_callback = lambda connection, name, context: seen.sni.append(name)
    return context


@cache
def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context
