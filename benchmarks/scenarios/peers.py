"""The same 1 KiB job with its result stored, by other queues: by their own API, and behind a minimal HTTP application."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial

from benchmarks.apps import BODY
from benchmarks.connection import Connection
from benchmarks.jobs import SUBMIT, run_jobs, run_requests
from benchmarks.load import hammer, post, traced
from benchmarks.peers import PEERS, PeerSpec
from benchmarks.peers.peer import AT_ONCE
from benchmarks.peers.stores import Store, open_store
from benchmarks.processor_time import processor_time, with_descendants
from benchmarks.scenario import Conditions, Figure, Measure, Metrics, Missing, Scenario, Variants
from benchmarks.servers import process, python, queue_server, uvicorn

OURS = "queue_middleware, behind HTTP"
_CHECK_INTERVAL = 0.01


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    count = conditions.count(10_000, 1_000)
    database = conditions.folder / "beside-peers.sqlite3"
    variants: dict[str, Measure | Missing] = {}
    with ExitStack() as stack:
        plain = stack.enter_context(uvicorn("benchmarks.apps:bare", None, "--lifespan", "off"))
        queue = stack.enter_context(queue_server(database))
        requests, submissions = traced("/x", BODY, count), traced(SUBMIT, BODY, count)
        await hammer(plain.port, requests, count // 4)
        await run_jobs([queue], database, submissions, count // 4)
        variants["bare"] = partial(run_requests, plain, requests, count)
        variants[OURS] = partial(run_jobs, [queue], database, submissions, count)
        for spec in PEERS:
            reason, jobs = spec.missing(), conditions.count(spec.jobs, 200)
            variants[spec.name] = Missing(reason) if reason else partial(_by_its_api, spec, jobs)
            variants[_behind_http(spec)] = Missing(reason) if reason else partial(_by_http, spec, jobs)
        yield variants


def _behind_http(spec: PeerSpec) -> str:
    return f"{spec.name}, behind HTTP"


@contextmanager
def _worker(spec: PeerSpec) -> Iterator[tuple[dict[str, str], list[int]]]:
    """An empty store and a worker; yields the environment of clients and the ids of both processes.

    They run only while this peer is measured, because some poll all the time.
    """
    with open_store(spec.store) as store:
        environ = {"PEER_STORE": store.url, "PEER": spec.path}
        _prepare(spec, store, environ)
        with process(python(*spec.worker), environ) as worker:
            yield environ, [*store.pids, worker.pid]


def _prepare(spec: PeerSpec, store: Store, environ: dict[str, str]) -> None:
    """Create the tables of those that need some."""
    if spec.store == "postgres":
        create = f"import asyncio; from {spec.path} import PEER as peer; asyncio.run(peer.open())"
        subprocess.run(python("-c", create), env={**os.environ, **environ}, check=True, capture_output=True)


async def _by_its_api(spec: PeerSpec, count: int) -> Metrics:
    """A process submits, another one runs the jobs."""
    with _worker(spec) as (environ, pids):
        command = python("-m", "benchmarks.peers.produce", spec.path, str(count), *map(str, pids))
        producer = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            output, errors = await producer.communicate()
        except BaseException:
            producer.kill()
            raise
    if producer.returncode:
        raise RuntimeError(f"the producer failed: {errors.decode().strip().splitlines()[-1:]}")
    metrics: Metrics = json.loads(output)
    return metrics


async def _by_http(spec: PeerSpec, count: int) -> Metrics:
    """64 connections submit to an HTTP application in front of the peer, another process runs the jobs."""
    with _worker(spec) as (environ, pids), uvicorn("benchmarks.peers.front:app", environ) as front:
        async with Connection.open(front.port) as control:
            await _run(front.port, control, AT_ONCE)
            every = with_descendants([*pids, front.pid])
            before, began = processor_time(every), time.perf_counter()
            latency = await _run(front.port, control, count)
            seconds, used = time.perf_counter() - began, processor_time(every) - before
    return {"per second": count / seconds, **latency, **used.per(count)}


async def _run(port: int, control: Connection, count: int) -> Metrics:
    before = await control.request("GET", "/stored")
    run = await hammer(port, post("/submit", BODY), count)
    while await control.request("GET", "/stored") < before + count:
        await asyncio.sleep(_CHECK_INTERVAL)
    return run.metrics()


def _ahead_of(spec: PeerSpec, http: bool) -> Figure:
    variant, key = (_behind_http(spec), f"{spec.module}-http") if http else (spec.name, spec.module)
    return Figure(f"peers.{key}", f"stored jobs behind HTTP ÷ those of {variant}", OURS, "per second", (variant, "per second"))


SCENARIO = Scenario(
    name="peers",
    title="the same job by other queues",
    open=_open,
    figures=tuple(_ahead_of(spec, http) for http in (False, True) for spec in PEERS),
    columns={
        "per second": "jobs per second",
        "p50": "p50 of a submission, ms",
        "p99": "p99, ms",
        "cpu": "CPU for a job, µs",
    },
    seconds=900,
    note=(
        "A job counts when its result is stored, and every step is on disk before it counts.",
        "By their own API, one process submits and another one runs the jobs.",
        "Behind HTTP, 64 connections submit to a minimal application in place of that process.",
        "CPU is that of all processes together: client or HTTP server, worker, and Redis or PostgreSQL.",
        *(f"{spec.name}: {spec.note}." for spec in PEERS),
    ),
)
