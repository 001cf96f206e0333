"""huey on SQLite with fsync. Its consumer imports `huey` from this module."""

from __future__ import annotations

from pathlib import Path

from huey import SqliteHuey

from .peer import BlockingPeer, store_url

huey = SqliteHuey(filename=str(Path(store_url()) / "huey.sqlite3"), fsync=True)


@huey.task()
def echo(body: str) -> str:
    """The job."""
    return body


class Huey(BlockingPeer):
    def submit_now(self, body: str) -> str:
        return str(echo(body).id)

    def result_now(self, job: str) -> str | None:
        result: str | None = huey.result(job, preserve=True)
        return result

    def stored_now(self) -> int:
        return int(huey.result_count())


PEER = Huey()
