"""What all peers have in common: why one is missing, the producer, and the HTTP application in front of it."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import ModuleType

import httpx
import pytest
from asgi_lifespan import LifespanManager

from benchmarks import peers
from benchmarks.apps import BODY
from benchmarks.peers import PEERS, produce
from benchmarks.peers.peer import AT_ONCE, Peer
from benchmarks.scenarios import peers as scenario

from . import fake_peer

HERE = replace(PEERS[0], packages=("asyncio",), store="file")


def test_a_peer_without_needs_is_not_missing() -> None:
    assert HERE.missing() is None


def test_a_missing_package_is_named_with_its_extra() -> None:
    reason = replace(HERE, packages=("asyncio", "no_such_package")).missing()
    assert reason == "no_such_package is not installed: pip install -e '.[bench]'"


@pytest.mark.parametrize(("store", "package"), [("redis", "redis-server"), ("postgres", "postgresql")])
def test_a_missing_server_is_named_with_its_package(store: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_program", lambda name: None)
    reason = replace(HERE, store=store).missing()
    assert reason is not None
    assert reason.endswith(f"is not installed: apt-get install {package}")


def test_every_peer_is_compared_in_both_ways() -> None:
    keys = {figure.key for figure in scenario.SCENARIO.figures}
    assert keys == {f"peers.{spec.module}{way}" for spec in PEERS for way in ("", "-http")}


# --- the producer


@pytest.mark.parametrize("peer", [fake_peer.FakePeer(), fake_peer.FakeBlockingPeer()], ids=lambda peer: type(peer).__name__)
async def test_the_producer_submits_as_many_jobs_as_asked(peer: Peer) -> None:
    measured = await produce.produce(peer, 100, [])
    assert await peer.stored() == 100 + AT_ONCE  # with the warm-up
    assert measured["per second"] > 0


class Wrong(fake_peer.FakePeer):
    async def result(self, job: str) -> str | None:
        return "something else"


async def test_a_wrong_result_fails_the_measurement() -> None:
    peer = Wrong()
    with pytest.raises(RuntimeError, match="is not that of its handler"):
        await produce.produce(peer, 1, [])
    assert peer.opened == 0


# --- behind HTTP


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("PEER", fake_peer.__name__)
    return importlib.import_module("benchmarks.peers.front")


async def test_the_front_submits_and_returns_results(front: ModuleType) -> None:
    async with LifespanManager(front.app) as manager:
        transport = httpx.ASGITransport(manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://peer.example") as client:
            early = await client.get("/result/0")
            submitted = await client.post("/submit", content=BODY)
            result = await client.get(f"/result/{submitted.json()['job']}")
            stored = await client.get("/stored")
    assert (early.status_code, submitted.status_code, result.status_code) == (202, 200, 200)
    assert result.content == BODY
    assert stored.json() == 1
    assert fake_peer.PEER.opened == 0
