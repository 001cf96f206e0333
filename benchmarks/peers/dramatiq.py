"""dramatiq on Redis: messages in database 0, results in database 1. Its worker imports this module."""

from __future__ import annotations

import dramatiq
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import ResultMissing, Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

from .peer import BlockingPeer, store_url

RESULTS = f"{store_url().removesuffix('/0')}/1"

broker = RedisBroker(url=store_url())
broker.add_middleware(Results(backend=RedisBackend(url=RESULTS), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor
def echo(body: str) -> str:
    """The job."""
    return body


class Dramatiq(BlockingPeer):
    def __init__(self) -> None:
        self._results = Redis.from_url(RESULTS)
        self._messages: dict[str, Message[str]] = {}

    def submit_now(self, body: str) -> str:
        message = echo.send(body)
        self._messages[message.message_id] = message
        return str(message.message_id)

    def result_now(self, job: str) -> str | None:
        try:
            return str(self._messages[job].get_result())
        except ResultMissing:
            return None

    def stored_now(self) -> int:
        return int(self._results.dbsize())


PEER = Dramatiq()
