"""Operations and reads on the processes that run."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Sequence

import msgspec

from queue_middleware.jobs.processes import ProcessRecord, Usage
from queue_middleware.webhooks.formats.user_agent import VERSION

from .transaction import Queries, Transaction


def this_process(owner: str, concurrency: int, now: int) -> ProcessRecord:
    """The record of this process, which starts now."""
    return ProcessRecord(owner, socket.gethostname(), os.getpid(), VERSION, concurrency, now, now, 0, 0, 0)


def put(transaction: Transaction, batch: Sequence[ProcessRecord]) -> list[None]:
    """Store processes."""
    for record in batch:
        transaction.change("put_process", _row_of(record))
    return [None] * len(batch)


def beat(transaction: Transaction, batch: Sequence[None]) -> list[None]:
    """Write something, to show that the database can be written."""
    transaction.change("update_heartbeat", (transaction.boot_time,))
    return [None] * len(batch)


def _row_of(record: ProcessRecord) -> dict[str, str | int]:
    """The parameters of the block `put_process`."""
    return msgspec.structs.asdict(record)


def report(record: ProcessRecord, usage: Usage, now: int) -> dict[str, str | int]:
    """The same for a process that is seen now: the whole row, which may never have been stored, or may have been deleted."""
    return _row_of(record) | {"seen_at": now, **msgspec.structs.asdict(usage)}


def read(queries: Queries) -> list[ProcessRecord]:
    """All stored processes, the oldest first, also those that were killed."""
    return [ProcessRecord(*row) for row in queries.all("processes")]


def oldest(queries: Queries, living: Collection[str]) -> str:
    """The owner, among those that run, that was started first; empty if none runs.

    On a full disk a process may run without a row. It counts as younger than those that have one.
    """
    stored = (record.owner for record in read(queries) if record.owner in living)
    return next(stored, min(living, default=""))


def delete(transaction: Transaction, batch: Sequence[Collection[str]]) -> list[None]:
    """Delete the processes of these owners."""
    for owners in batch:
        transaction.change("delete_processes", (list(owners),))
    return [None] * len(batch)
