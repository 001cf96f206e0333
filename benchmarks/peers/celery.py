"""celery on Redis: messages in database 0, results in database 1. Its worker imports `app` from this module."""

from __future__ import annotations

from celery import Celery
from redis import Redis

from .peer import BlockingPeer, store_url

RESULTS = f"{store_url().removesuffix('/0')}/1"

app = Celery("peer", broker=store_url(), backend=RESULTS)
app.conf.update(
    task_acks_late=True,  # otherwise a job that has begun is lost with its worker
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)


@app.task
def echo(body: str) -> str:
    """The job."""
    return body


class CeleryPeer(BlockingPeer):
    def __init__(self) -> None:
        self._results = Redis.from_url(RESULTS)

    def submit_now(self, body: str) -> str:
        return str(echo.delay(body).id)

    def result_now(self, job: str) -> str | None:
        result = app.AsyncResult(job)
        return result.result if result.ready() else None

    def stored_now(self) -> int:
        return int(self._results.dbsize())


PEER = CeleryPeer()
