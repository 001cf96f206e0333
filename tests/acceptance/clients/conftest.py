"""One service and one edge for all clients; each client has its own environment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.acceptance.servers import Server, serving

from .children import Client, node_client, python_client
from .edge import SERVICE, Edge, edge
from .environments import BUILDS, Environment, Environments, Missing

REQUIRED = "QUEUE_TESTS_REQUIRE_CLIENTS"
"""If this is 1, a missing environment is a failure, as in `.ci/run`; otherwise its tests are skipped with the reason."""


def studio(port: int) -> list[str]:
    """uvicorn as it is run behind a proxy that terminates TLS."""
    proxied = ("--proxy-headers", "--forwarded-allow-ips", "127.0.0.1")
    return ["uvicorn", "tests.acceptance.clients.service:app", "--host", "127.0.0.1", "--port", str(port), *proxied]


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    """An event loop in a thread, for fixtures of the session: each test has its own event loop."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, portal: BlockingPortal) -> Iterator[Server]:
    """The studio. It paints one picture at a time, so that a test determines which request waits for which."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "gates").mkdir()
    running = serving(studio, folder, concurrency=1, fal_hosts=f"queue.{SERVICE}")
    with portal.wrap_async_context_manager(running) as server:
        yield server
        raised = server.output.count("the application raised RuntimeError")
        assert server.complaints() == ["Traceback (most recent call last):"] * raised
        assert portal.call(server.stop) in (0, -signal.SIGTERM)


@pytest.fixture
def gate(service: Server) -> Iterator[str]:
    """Holds a picture back until the client opens it; always open after the test."""
    name = uuid4().hex
    yield name
    (service.directory / "gates" / name).touch()


@pytest.fixture(scope="session")
def network(service: Server, portal: BlockingPortal) -> Iterator[Edge]:
    """The network between the clients and the service."""
    with portal.wrap_async_context_manager(edge(service.port, service.directory)) as made:
        yield made


@pytest.fixture(scope="session")
def environments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    """All environments that the collected tests need, created concurrently."""
    cache = request.config.cache
    folder = cache.mkdir("clients") if cache else tmp_path_factory.mktemp("clients")
    fixtures = {name for item in request.session.items if isinstance(item, pytest.Function) for name in item.fixturenames}
    with Environments(folder, fixtures & BUILDS.keys()) as made:
        yield made


def require_environment(name: str, environments: Environments) -> Environment:
    """The environment; skips or fails the test if it is missing."""
    try:
        return environments.get(name)
    except Missing as error:
        missing = str(error)
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED} is set, and there is no {name}: {missing}", pytrace=False)
    pytest.skip(f"no {name} here: {missing}")


@pytest.fixture(scope="session")
def fal_client(environments: Environments, network: Edge, service: Server) -> Client:
    return python_client(require_environment("fal_client", environments), "fal_client_now.py", network, service.directory)


@pytest.fixture(scope="session")
def fal_client_first(environments: Environments, network: Edge, service: Server) -> Client:
    return python_client(
        require_environment("fal_client_first", environments), "fal_client_first.py", network, service.directory
    )


@pytest.fixture(scope="session")
def fal_sdk(environments: Environments, network: Edge, service: Server) -> Client:
    return python_client(require_environment("fal_sdk", environments), "fal_apps.py", network, service.directory)


@pytest.fixture(scope="session")
def fal_sdk_gateway(environments: Environments, network: Edge, service: Server) -> Client:
    return python_client(require_environment("fal_sdk_gateway", environments), "fal_apps.py", network, service.directory)


@pytest.fixture(scope="session")
def fal_js(node: Environment, network: Edge, service: Server) -> Client:
    return node_client(node, "fal_js.cjs", network, service.directory)


@pytest.fixture(scope="session", params=["serverless-client-0.5", "serverless-client-0.7"])
def serverless_js(node: Environment, network: Edge, service: Server, request: pytest.FixtureRequest) -> Client:
    client = node_client(node, "serverless_js.cjs", network, service.directory)
    return client.setting(PACKAGE=request.param)


@pytest.fixture(scope="session")
def node(environments: Environments) -> Environment:
    return require_environment("node", environments)
