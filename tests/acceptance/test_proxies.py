"""nginx and Caddy in front of a real server, with the files of the documentation; only addresses and certificates differ."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
import trustme
import yaml

from tests.meta.test_docs import ROOT, blocks
from tests.support.queue_client import eventually
from tests.support.tools import tool

from .servers import Server, free_port, serving, uvicorn

pytestmark = pytest.mark.slow

HOST = "api.example.com"
QUEUE_HOST = "queue.example.com"
HOW_TO = ROOT / "docs" / "how-to"
BEHIND = uvicorn("--proxy-headers", "--forwarded-allow-ips", "127.0.0.1")


@dataclass
class Proxy:
    """A proxy that is to start: the file of the page, and where it listens."""

    directory: Path
    port: int
    backend: int
    authority: trustme.CA

    @property
    def certificate(self) -> tuple[Path, Path]:
        """The files of chain and key."""
        return self.directory / "chain.pem", self.directory / "key.pem"

    def write_certificate(self) -> None:
        issued = self.authority.issue_cert(HOST, QUEUE_HOST)
        chain, key = self.certificate
        chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())

    def client(self) -> httpx.AsyncClient:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return httpx.AsyncClient(base_url=f"https://127.0.0.1:{self.port}", verify=context, timeout=60, trust_env=False)


def nginx(proxy: Proxy) -> list[str]:
    """The command, after its file is written."""
    page = "".join(blocks(HOW_TO / "behind-nginx.md", "nginx"))
    chain, key = proxy.certificate
    page = page.replace(QUEUE_HOST + ".", HOST + ".")  # its certificate has both names
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{proxy.port} ssl"),
        ("127.0.0.1:8000", f"127.0.0.1:{proxy.backend}"),
        (f"/etc/ssl/certs/{HOST}.pem", str(chain)),
        (f"/etc/ssl/private/{HOST}.key", str(key)),
    ):
        assert old in page
        page = page.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {proxy.directory}/{kind};\n" for kind in kinds)
    path = proxy.directory / "nginx.conf"
    path.write_text(
        f"daemon off; master_process off; pid {proxy.directory}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{folders}{page}\n}}\n"
    )
    return [tool("nginx", "nginx-light"), "-e", "stderr", "-c", str(path)]


def caddy(proxy: Proxy) -> list[str]:
    """The command, after its file is written."""
    page = "".join(blocks(HOW_TO / "behind-caddy.md", "caddyfile"))
    chain, key = proxy.certificate
    for old, new in (
        *((f"{host} {{", f"https://{host}:{proxy.port} {{\n\ttls {chain} {key}\n") for host in (HOST, QUEUE_HOST)),
        ("127.0.0.1:8000", f"127.0.0.1:{proxy.backend}"),
    ):
        assert old in page
        page = page.replace(old, new)
    options = "\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n"
    path = proxy.directory / "Caddyfile"
    path.write_text(f"{{\n{options}}}\n{page}")
    return [tool("caddy"), "run", "--adapter", "caddyfile", "--config", str(path)]


PROXIES = {"nginx": nginx, "caddy": caddy}


class Caller:
    """Calls the service through the proxy, under its public name."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def call(self, method: str, path: str, host: str = HOST, **request: object) -> httpx.Response:
        async with self.stream(method, path, host, **request) as response:
            await response.aread()
            return response

    @asynccontextmanager
    async def stream(self, method: str, path: str, host: str = HOST, **request: object) -> AsyncIterator[httpx.Response]:
        made = self._client.build_request(method, path, headers={"host": host}, **request)  # type: ignore[arg-type]
        made.extensions["sni_hostname"] = host
        response = await self._client.send(made, stream=True)
        try:
            yield response
        finally:
            await response.aclose()


@asynccontextmanager
async def behind(name: str, directory: Path, server: Server) -> AsyncIterator[Caller]:
    """The proxy in front of this server. It never survives the block."""
    directory.mkdir()
    proxy = Proxy(directory, free_port(), server.port, trustme.CA())
    proxy.write_certificate()
    environ = {**os.environ, "XDG_CONFIG_HOME": str(directory), "XDG_DATA_HOME": str(directory)}  # Caddy keeps its file there
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(PROXIES[name](proxy), env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        async with proxy.client() as client:
            caller = Caller(client)
            await eventually(lambda: _responds(caller, process, directory), 30)
            yield caller
    finally:
        process.terminate()
        await anyio.to_thread.run_sync(process.wait, 30)


async def _responds(caller: Caller, process: subprocess.Popen[bytes], directory: Path) -> bool:
    assert process.poll() is None, (directory / "output").read_text()
    with suppress(httpx.TransportError):
        return (await caller.call("GET", "/health")).status_code == 200
    return False


async def test_the_health_check_of_compose_reports_the_state(tmp_path: Path) -> None:
    (compose,) = yaml.safe_load_all(blocks(HOW_TO / "docker.md", "yaml")[0])
    kind, program, *arguments = compose["services"]["api"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")

    async def check() -> int:
        words = [argument.replace(":8000/", f":{server.port}/") for argument in arguments]
        done = await anyio.run_process([sys.executable, *words], check=False)
        return done.returncode

    async with serving(BEHIND, tmp_path) as server:
        assert await check() == 0
        await server.stop()
        assert await check() == 1
        await server.start()


@pytest.mark.parametrize("name", PROXIES)
async def test_the_queue_works_behind_the_proxy(name: str, tmp_path: Path) -> None:
    async with serving(BEHIND, tmp_path) as server, behind(name, tmp_path / "proxy", server) as caller:
        submitted = await caller.call("POST", "/fal/queue/submit/gated", json={})
        assert submitted.status_code == 200, submitted.text
        receipt = submitted.json()
        assert receipt["status_url"].startswith(f"https://{HOST}/fal/queue/requests/")
        # The stream is not held back: its first events arrive while the request runs.
        async with caller.stream("GET", f"/fal/queue/requests/{receipt['request_id']}/status/stream") as stream:
            states = _states(stream)
            with anyio.fail_after(60):
                while await anext(states) != "IN_PROGRESS":
                    pass
                (tmp_path / "gate").touch()
                while await anext(states) != "COMPLETED":
                    pass
        response = await caller.call("GET", f"/fal/queue/requests/{receipt['request_id']}/response")
        assert response.text == "through"


async def _states(stream: httpx.Response) -> AsyncIterator[str]:
    async for line in stream.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))["status"]


@pytest.mark.parametrize("name", PROXIES)
async def test_the_rules_of_the_proxy_see_the_inner_path(name: str, tmp_path: Path) -> None:
    async with serving(BEHIND, tmp_path) as server, behind(name, tmp_path / "proxy", server) as caller:
        statuses = {
            path: (await caller.call("POST", path, json={})).status_code
            for path in (
                "/fal/queue/submit/admin/keys",
                "/fal/queue/run/any/name/admin",
                "/fal/queue/submit/%61dmin/keys",
                "/fal/queue/v1/tasks",
                "/fal/queue/metrics",
                "/fal/queue/metrics/?name=a",
                "/fal/queue/m%65trics/",
                "/fal/queue/health/ready",
                "/fal/queue/health/ready/",
                "/fal/queue/submit/administrators",
            )
        }
    assert list(statuses.values()) == [403, 403, 403, 403, 404, 404, 404, 404, 404, 200], statuses


@pytest.mark.parametrize("name", PROXIES)
async def test_the_host_of_the_queue_passes_no_more(name: str, tmp_path: Path) -> None:
    async with serving(BEHIND, tmp_path) as server, behind(name, tmp_path / "proxy", server) as caller:
        statuses = {
            path: (await caller.call("POST", path, QUEUE_HOST, json={})).status_code
            for path in (
                "/any/name/admin/keys",
                "/workflows/any/name/admin",
                "/fal/queue/submit/admin/keys",
                "/fal/queue/run/any/name/admin",
                "/fal/queue/v1/tasks",
                "/fal/queue/metrics/",
                "/fal/queue/health/live",
                "/fal/queue/submit/health",
            )
        }
    assert list(statuses.values()) == [403, 403, 403, 403, 403, 404, 404, 200], statuses


@pytest.mark.parametrize("name", PROXIES)
async def test_bodies_may_be_as_large_as_the_queue_allows(name: str, tmp_path: Path) -> None:
    async with serving(BEHIND, tmp_path) as server, behind(name, tmp_path / "proxy", server) as caller:
        largest = b" " * (10 * 2**20 - 2) + b"{}"
        assert (await caller.call("POST", "/fal/queue/submit/health", content=largest)).status_code == 200
        with suppress(httpx.ReadError, httpx.WriteError) if name == "caddy" else nullcontext():
            assert (await caller.call("POST", "/fal/queue/submit/health", content=b"  " + largest)).status_code == 413
        assert (await caller.call("GET", "/health")).status_code == 200
        assert server.output.count("POST /fal/queue/submit/health") == server.output.count(" 413 ") + 1
