"""Keeps the requests of jobs that end, if the option `keep_requests` says so. They are in a table of their own.

Everything here runs before the change of state, because the end of a job deletes its request and the secrets of its task.
The chunks of a kept request stay where they are: `delete_request_chunks` leaves them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from queue_middleware.jobs.kept_requests import KeepPolicy, KeepRequests
from queue_middleware.jobs.models import Failure, StoredResponse
from queue_middleware.settings import Settings

from .codec import decode_request, decode_secrets, encode_request, encode_secrets
from .transaction import Transaction


def keep_policy(settings: Settings) -> KeepPolicy | None:
    """What the options of this process say; None if no request is kept."""
    mode = KeepRequests(settings.keep_requests)
    if mode is KeepRequests.NONE:
        return None
    return KeepPolicy(mode, round(settings.keep_requests_for * 1000), tuple(settings.keep_without))


def end_running(transaction: Transaction, ended: Iterable[tuple[int, int, StoredResponse | Failure]]) -> None:
    """Keep requests of running jobs that are about to end. Each item: key and token of the claim, the outcome."""
    policy = transaction.keep
    if policy is None:
        return
    claims = [(key, token) for key, token, outcome in ended if policy.keeps(outcome)]
    if claims:
        _keep(transaction, policy, transaction.all("requests_of_claims", (claims,)), transaction.now + policy.milliseconds)


def begin_wait(transaction: Transaction, key: int, token: int) -> None:
    """Keep the request of a running job that is about to await an external service, until its outcome is known."""
    if transaction.keep is not None:
        _keep(transaction, transaction.keep, transaction.all("requests_of_claims", ([(key, token)],)), None)


def end_not_running(transaction: Transaction, keys: Sequence[int], outcome: StoredResponse | Failure) -> None:
    """Keep requests of jobs that are about to end without an attempt: queued, delayed and awaiting ones."""
    policy = transaction.keep
    if policy is None or not policy.keeps(outcome):
        # Also without a policy: the process that began the wait may have had one.
        transaction.change("delete_requests_of_waits", (list(keys),))
        return
    until = transaction.now + policy.milliseconds
    transaction.change("keep_requests_of_waits", (until, list(keys)))
    _keep(transaction, policy, transaction.all("requests_not_started", (list(keys),)), until)


def _keep(transaction: Transaction, policy: KeepPolicy, rows: Iterable[tuple[Any, ...]], until: int | None) -> None:
    """`rows`: key, head and secrets of each request."""
    kept = [(key, _head(policy, head), _secrets(policy, secrets)) for key, head, secrets in rows]
    if kept:
        transaction.rows("keep_requests", kept, (until,))


def _head(policy: KeepPolicy, head: bytes) -> bytes:
    if not policy.without:
        return head
    try:
        request = decode_request(head, b"")
    except msgspec.DecodeError:  # it was never run, and cannot be submitted again either
        return b""
    return encode_request(request.replace(headers=policy.kept_headers(request.headers)))


def _secrets(policy: KeepPolicy, secrets: bytes | None) -> bytes:
    """The headers for the polls of a task; empty if there are none."""
    if secrets is None:
        return b""
    headers = decode_secrets(secrets)
    return encode_secrets({name: value for name, value in headers.items() if not policy.is_left_out(name.lower().encode())})
