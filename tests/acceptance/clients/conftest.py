"""One service and one edge for all clients, and every client in its own environment."""

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
"""Set to 1, an environment that cannot be made is a failure, as in `.ci/run`; otherwise its tests are skipped, and say why."""


def studio(port: int) -> list[str]:
    """uvicorn as one runs it behind a proxy that ends TLS."""
    proxied = ("--proxy-headers", "--forwarded-allow-ips", "127.0.0.1")
    return ["uvicorn", "tests.acceptance.clients.service:app", "--host", "127.0.0.1", "--port", str(port), *proxied]


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    """An event loop beside those of the tests. They begin with one of their own each, and do so after these tests too."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, portal: BlockingPortal) -> Iterator[Server]:
    """The studio. It paints one picture at a time, so that a test knows who waits for whom."""
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
    """Holds a picture back until the client opens it; open after the test, however it ended."""
    name = uuid4().hex
    yield name
    (service.directory / "gates" / name).touch()


@pytest.fixture(scope="session")
def network(service: Server, portal: BlockingPortal) -> Iterator[Edge]:
    """What is between the clients and the service."""
    with portal.wrap_async_context_manager(edge(service.port, service.directory)) as made:
        yield made


@pytest.fixture(scope="session")
def environments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    """All environments that the collected tests need, made at the same time."""
    cache = request.config.cache
    folder = cache.mkdir("clients") if cache else tmp_path_factory.mktemp("clients")
    fixtures = {name for item in request.session.items if isinstance(item, pytest.Function) for name in item.fixturenames}
    with Environments(folder, fixtures & BUILDS.keys()) as made:
        yield made


def the(name: str, environments: Environments) -> Environment:
    """The environment, or the end of the test."""
    try:
        return environments.get(name)
    except Missing as error:
        missing = str(error)
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED} is set, and there is no {name}: {missing}", pytrace=False)
    pytest.skip(f"no {name} here: {missing}")


@pytest.fixture(scope="session")
def fal_client(environments: Environments, network: Edge, service: Server) -> Client:
    return python_client(the("fal_client", environments), "fal_client_now.py", network, service.directory)


@pytest.fixture(scope="session")
def fal_client_first(environments: Environments, network: Edge, service: Server) -> Client:
    return python_client(the("fal_client_first", environments), "fal_client_first.py", network, service.directory)


@pytest.fixture(scope="session")
def fal_sdk(environments: Environments, network: Edge, service: Server) -> Client:
    return python_client(the("fal_sdk", environments), "fal_apps.py", network, service.directory)


@pytest.fixture(scope="session")
def fal_sdk_gateway(environments: Environments, network: Edge, service: Server) -> Client:
    return python_client(the("fal_sdk_gateway", environments), "fal_apps.py", network, service.directory)


@pytest.fixture(scope="session")
def fal_js(node: Environment, network: Edge, service: Server) -> Client:
    return node_client(node, "fal_js.cjs", network, service.directory)


@pytest.fixture(scope="session", params=["serverless-client-0.5", "serverless-client-0.7"])
def serverless_js(node: Environment, network: Edge, service: Server, request: pytest.FixtureRequest) -> Client:
    client = node_client(node, "serverless_js.cjs", network, service.directory)
    return client.setting(PACKAGE=request.param)


@pytest.fixture(scope="session")
def node(environments: Environments) -> Environment:
    return the("node", environments)
