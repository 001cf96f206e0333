"""procrastinate on PostgreSQL. `python -m benchmarks.peers.procrastinate` runs its worker.

It stores no results, so the job stores its own, in a table.
"""

from __future__ import annotations

import asyncio

from procrastinate import App, JobContext, PsycopgConnector

from .peer import AT_ONCE, Peer, store_url

_CONNECTIONS = 16

app = App(connector=PsycopgConnector(conninfo=store_url(), min_size=1, max_size=_CONNECTIONS))


@app.task(name="echo", pass_context=True)
async def echo(context: JobContext, body: str) -> None:
    """The job."""
    query = "INSERT INTO peer_result (job, body) VALUES (%(job)s, %(body)s)"
    await app.connector.execute_query_async(query, job=context.job.id, body=body)


class Procrastinate(Peer):
    async def open(self) -> None:
        await app.open_async()
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
            await app.connector.execute_query_async("CREATE TABLE peer_result (job bigint PRIMARY KEY, body text NOT NULL)")

    async def close(self) -> None:
        await app.close_async()

    async def submit(self, body: str) -> str:
        return str(await echo.defer_async(body=body))

    async def result(self, job: str) -> str | None:
        rows = await app.connector.execute_query_all_async("SELECT body FROM peer_result WHERE job = %(job)s", job=int(job))
        return rows[0]["body"] if rows else None

    async def stored(self) -> int:
        rows = await app.connector.execute_query_all_async("SELECT count(*) AS stored FROM peer_result")
        return int(rows[0]["stored"])


PEER = Procrastinate()


async def work() -> None:
    """Run a worker until SIGTERM."""
    async with app.open_async():
        await app.run_worker_async(concurrency=AT_ONCE)


if __name__ == "__main__":
    asyncio.run(work())
