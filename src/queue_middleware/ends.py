"""The words for how requests and attempts end."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended: with which class of HTTP status (RFC 9110 section 15), or without an answer."""

    SUCCESS = "2xx"
    REDIRECTION = "3xx"
    CLIENT_ERROR = "4xx"
    SERVER_ERROR = "5xx"
    """Also of a handler that raised, where its framework answers 500."""
    OTHER = "other"
    """A status that is none of HTTP's."""
    FAILED = "failed"
    """Without an answer: the handler raised, a time limit passed, its process was lost too often."""
    CANCELLED = "cancelled"


class Loss(StrEnum):
    """How a job lost the process that ran it."""

    PROCESS_DIED = "process_died"
    LEASE_EXPIRED = "lease_expired"
    EXIT = "exit"
    """Its handler ended the process by `KeyboardInterrupt` or `SystemExit`."""
