"""Stores the response of a job, whether it came from the application or from an external service."""

from __future__ import annotations

from queue_middleware.jobs.models import CHUNK_SIZE, StoredResponse

from .codec import encode_headers, split_body
from .transaction import Transaction


def put_response(transaction: Transaction, key: int, response: StoredResponse) -> None:
    """Store a response. A long one that is not in chunks yet is split, so that it can be read in chunks."""
    rest, count = response.body, response.chunks
    if len(rest) > CHUNK_SIZE and not count:
        *chunks, rest = split_body(rest)
        count = len(chunks)
        transaction.change("delete_response_chunks", (key,))
        rows = [(key, number, data) for number, data in enumerate(chunks)]
        transaction.rows("insert_response_chunks", rows)
    transaction.payloads.append((key, encode_headers(response.headers), rest, count))
