"""`python -m benchmarks.peers.produce MODULE COUNT PID…`: submit jobs by a peer's own API, until the last result is stored.

Prints jobs per second and, of this process and those with these ids, the CPU for each job.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from benchmarks.apps import BODY
from benchmarks.processor_time import processor_time, with_descendants
from benchmarks.scenario import Metrics

from .peer import AT_ONCE, Peer, load_peer

_CHECK_INTERVAL = 0.005


async def produce(peer: Peer, count: int, pids: list[int]) -> Metrics:
    """Warm up, so that the worker has started for certain, then measure. Raises `RuntimeError` if a result is wrong."""
    await peer.open()
    try:
        await _run(peer, AT_ONCE)
        every = with_descendants(pids)
        before, began = processor_time(every), time.perf_counter()
        job = await _run(peer, count)
        seconds, used = time.perf_counter() - began, processor_time(every) - before
        if await peer.result(job) != BODY.decode():
            raise RuntimeError(f"the result of job {job} is not that of its handler")
    finally:
        await peer.close()
    return {"per second": count / seconds, **used.per(count)}


async def _run(peer: Peer, count: int) -> str:
    before = await peer.stored()
    job = await peer.submit_many(BODY.decode(), count)
    while await peer.stored() < before + count:
        await asyncio.sleep(_CHECK_INTERVAL)
    return job


if __name__ == "__main__":
    name, jobs, *others = sys.argv[1:]
    print(json.dumps(asyncio.run(produce(load_peer(name), int(jobs), [os.getpid(), *map(int, others)]))))
