"""All options with their defaults and environment names; the only module that reads options from the environment."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from os import PathLike
from typing import Any, Literal, Self, TypedDict

from .errors import SettingsError
from .option_parsers import (
    parse_app,
    parse_crash,
    parse_database,
    parse_flag,
    parse_header_names,
    parse_hosts,
    parse_hosts_or_suffixes,
    parse_integer,
    parse_keep_requests,
    parse_key_or_path,
    parse_name,
    parse_origins,
    parse_patterns,
    parse_prefix,
    parse_public_url,
    parse_seconds,
    parse_size,
    parse_tracing,
    parse_waits,
    parse_words,
)
from .secret_parsers import Admins, parse_admin, parse_key_sources, parse_keys, parse_secrets, parse_webhook_secrets

_VARIABLES = {"queue_app": "QUEUE_APP", "admin": "QUEUE_ADMIN_TOKEN"}
"""Variables that are not named like their option: QUEUE is not repeated, and a function cannot be set in the environment."""


class Options(TypedDict, total=False):
    """The keyword arguments of `QueueMiddleware` and their types; `Settings` documents each one and its default."""

    database: str | PathLike[str]
    name: str | None
    prefix: str
    fal_hosts: str | Sequence[str]
    queue_app: str | None
    cors_origins: str | Sequence[str]
    concurrency: int
    public_url: str | None
    paths: str | Sequence[str]
    require_idempotency_key: str | Sequence[str]
    idempotency_headers: str | Sequence[str]
    idempotency_retry_failed: bool
    outbound_allow: str | Sequence[str]
    api_keys: str | Sequence[str]
    admin: str | Admins | None
    metrics_public: bool
    task_targets: str | Sequence[str]
    task_headers_allow: str | Sequence[str]
    proxy_headers: str | Sequence[str]
    callback_timeout: float | str
    callback_secret: str | None
    callback_keys: str | Sequence[str]
    webhook_schedule: str | Sequence[float | str]
    webhook_max_payload: int | str | None
    webhook_timeout: float | str
    webhook_secret: str | Sequence[str]
    signing_key: str | PathLike[str] | None
    request_timeout: float | str
    max_attempts: int
    on_crash: Literal["retry", "fail"]
    lease: float | str
    max_request_body: int | str
    body_timeout: float | str
    max_response_body: int | str
    capture_logs: bool
    max_logs: int | str
    metrics: bool
    max_queued: int
    max_queued_per_client: int
    max_tasks: int
    max_tasks_per_client: int
    max_delay: float | str
    max_wait: float | str
    retention: float | str
    keep_requests: Literal["none", "failed", "all"]
    keep_requests_for: float | str
    keep_without: str | Sequence[str]
    shutdown_timeout: float | str
    min_free_disk: int | str | None
    allow_network_filesystem: bool
    tracing: Literal["link", "parent"]
    trace_outbound: bool
    otel_identities: bool


def _option(default: Any, parse: Callable[[object], Any], *, least: float | None = None, shown: bool = True) -> Any:
    return field(default=default, metadata={"parse": parse, "least": least}, repr=shown)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every option of `QueueMiddleware`, checked and in its final form.

    Each is also read from the environment as `QUEUE_<NAME>` by `Settings.load`: keyword > environment > default.
    Durations are seconds, or strings such as `"30s"`, `"5m"`, `"7d"`; sizes are bytes, or strings such as `"10 MiB"`;
    lists are sequences, or strings with commas. Raises `SettingsError` for a value that cannot be parsed.
    """

    database: str = _option("queue.sqlite3", parse_database)
    """Path of the SQLite file, or `sqlite:///…`; `~` is the home folder.

    The settings of a queue hold the real path as of its construction, with symbolic links resolved. Companion files (`-wal`,
    `-shm`, `.reserve`, `.lock`, `.key`) are stored beside it. Its folder has to exist when the queue starts.
    """
    name: str | None = _option(None, parse_name)
    """Name of the application; a database belongs to one. Default: the name of the module that creates the queue."""
    prefix: str = _option("/fal/queue", parse_prefix)
    """Path prefix of the queue's routes."""
    fal_hosts: tuple[str, ...] = _option((), parse_hosts)
    """Hosts that serve only the queue: at their root are the URLs of queue.fal.run, `/{owner}/{alias}/…`."""
    queue_app: str | None = _option(None, parse_app)
    """The only `owner/alias` that such URLs may name; by default any."""
    cors_origins: tuple[str, ...] = _option((), parse_origins)
    """Origins whose pages may call the queue's routes from a browser, e.g. `https://app.example.com`; `*` for all."""
    concurrency: int = _option(8, parse_integer, least=1)
    """Requests that run at the same time in this process."""
    public_url: str | None = _option(None, parse_public_url)
    """Base of the URLs in responses; by default they are built from the request."""
    paths: tuple[str, ...] = _option((), parse_patterns)
    """Patterns of paths that may be queued, e.g. `"/generate, /models/*"`; empty means all."""
    require_idempotency_key: tuple[str, ...] = _option((), parse_patterns)
    """Patterns, as in `paths`, of paths that may be queued only with the header `Idempotency-Key`."""
    idempotency_headers: tuple[str, ...] = _option((), parse_header_names)
    """Headers that distinguish requests with the same `Idempotency-Key`, besides method, path, query and body."""
    idempotency_retry_failed: bool = _option(False, parse_flag)
    """Let a repeated submission begin anew if the request with its `Idempotency-Key` has failed: without a response, or with
    a status from 500. By default it receives the failed request."""
    outbound_allow: tuple[str, ...] = _option((), parse_words)
    """Hosts, `*.suffix` or networks that webhooks, polls and tasks may reach even if they are private or use plain http."""
    api_keys: tuple[str, ...] = _option((), parse_keys, shown=False)
    """API keys of clients, sent as `Authorization: Key …`, `Authorization: Bearer …` or `X-API-Key`.

    With this option, or with `authenticate`, a request belongs to the client that submitted it. The part of a key before its
    colon is the client's name.
    """
    admin: str | Admins | None = _option(None, parse_admin, shown=False)  # noqa: RUF009 - as all options
    """Who may use the routes of operators: a token of at least 16 characters, sent as `Authorization: Bearer …`, or an async
    function. By default these routes do not exist."""
    metrics_public: bool = _option(False, parse_flag)
    """Show the metrics to everyone."""
    task_targets: tuple[str, ...] = _option((), parse_hosts_or_suffixes)
    """Hosts and `*.suffix` that tasks may call; by default they may call the wrapped application only."""
    task_headers_allow: tuple[str, ...] = _option((), parse_header_names)
    """Headers that tasks may set even though proxies set them, e.g. `X-Forwarded-Host`; see `proxy_headers`."""
    proxy_headers: tuple[str, ...] = _option((), parse_header_names)
    """Headers in which your proxy describes the client to the application, in addition to the table in `asgi/proxy_headers.py`.

    E.g. `X-User-Id, X-Internal-*`. Tasks cannot set them; the application receives those of the request that created the task.
    """
    callback_timeout: float = _option(3600.0, parse_seconds, least=0.01)
    """Seconds for which a plain submission waits for its callback; tasks set `maxWaitTime` instead."""
    callback_secret: tuple[bytes, ...] = _option((), parse_secrets, shown=False)
    """Secrets from which callback URLs are derived, 64 hex digits each; the first one is used for new URLs.

    By default one is generated and stored beside the database with mode 0600.
    """
    callback_keys: tuple[tuple[str, str], ...] = _option((), parse_key_sources, shown=False)
    """Keys with which callbacks from these targets have to be signed: `host=<URL of a JWKS>`, or `host=whsec_…`."""
    webhook_schedule: tuple[float, ...] = _option((5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0), parse_waits)
    """Seconds between the attempts to deliver a webhook, each ± 20 %; an empty list means one attempt."""
    webhook_max_payload: int | None = _option(None, parse_size, least=0)
    """Bytes of a result above which its webhook holds only the URL of the result; by default a webhook holds every result."""
    webhook_timeout: float = _option(15.0, parse_seconds, least=0.1)
    """Seconds for one delivery attempt in total."""
    webhook_secret: tuple[str, ...] = _option((), parse_webhook_secrets, shown=False)
    """Secrets, `whsec_…`, shared with receivers: webhooks are also signed with each of them (`v1` of Standard Webhooks)."""
    signing_key: str | None = _option(None, parse_key_or_path, shown=False)
    """Ed25519 seeds, 64 hex digits each, or the absolute path of a file with seeds. `webhooks.signing.keyring` describes them.

    By default a key is generated and stored beside the database with mode 0600.
    """
    request_timeout: float = _option(3600.0, parse_seconds, least=0.01)
    """Seconds for one attempt of a request."""
    max_attempts: int = _option(3, parse_integer, least=1)
    """Attempts of a request. It is repeated after a lost process, 503, 504, 429 with `Retry-After`, a timeout, or an incomplete
    response."""
    on_crash: str = _option("retry", parse_crash)
    """`retry` or `fail`: what happens to a request whose process died while executing it."""
    lease: float = _option(60.0, parse_seconds, least=0.5)
    """Seconds after which another process takes over the work of an unresponsive one. Renewed every quarter of it."""
    max_request_body: int = _option(10 * 2**20, parse_size, least=0)
    """Bytes; a larger body is rejected with 413 as soon as it exceeds the limit."""
    body_timeout: float = _option(20.0, parse_seconds, least=0.1)
    """Seconds of a period, in which a body has to end, or 1 KiB of it has to arrive per second; else the response is 408."""
    max_response_body: int = _option(64 * 2**20, parse_size, least=0)
    """Bytes; a longer response of the application ends the request as failed."""
    capture_logs: bool = _option(True, parse_flag)
    """Store what the application logs with `logging` while it executes a request, for the submitter to read.

    Lines of `current_job.log` are stored in any case.
    """
    max_logs: int = _option(2**20, parse_size, least=0)
    """Bytes of log lines stored per attempt, and 10,000 lines at most; 0 stores none."""
    metrics: bool = _option(True, parse_flag)
    """Count what happens, for `GET {prefix}/metrics` and the operator's overviews. The counts are stored once a second."""
    max_queued: int = _option(10_000, parse_integer, least=1)
    """Queued requests; above it submissions are rejected with 503."""
    max_queued_per_client: int = _option(1_000, parse_integer, least=1)
    """Queued requests of one client; above it its submissions are rejected with 429."""
    max_tasks: int = _option(10_000, parse_integer, least=1)
    """Tasks that have not ended, and requests that await a callback; above it further ones are rejected with 503."""
    max_tasks_per_client: int = _option(1_000, parse_integer, least=1)
    """Tasks of one client that have not ended, and its requests that await a callback; above it all submissions of the client
    are rejected with 429."""
    max_delay: float = _option(30 * 86400.0, parse_seconds, least=0)
    """Seconds by which a task may be delayed (`delayUntil`)."""
    max_wait: float = _option(30 * 86400.0, parse_seconds, least=0.01)
    """Longest time in seconds that a task or a request may wait for an external service."""
    retention: float = _option(7 * 86400.0, parse_seconds, least=0)
    """Seconds for which finished requests, their results and deliveries are kept."""
    keep_requests: str = _option("none", parse_keep_requests)
    """Which requests are kept after their end, so that an operator can submit them again: `none`, `failed` or `all`.

    `failed`: those that ended without a response or with a status from 500, and were not cancelled.
    """
    keep_requests_for: float = _option(86400.0, parse_seconds, least=0)
    """Seconds for which they are kept, at most until `retention` deletes them."""
    keep_without: tuple[str, ...] = _option((), parse_header_names)
    """Headers that are not kept, e.g. `Authorization, Cookie`."""
    shutdown_timeout: float = _option(20.0, parse_seconds, least=0)
    """Seconds for running requests to end at shutdown; the others are handed back to the queue."""
    min_free_disk: int | None = _option(None, parse_size, least=0)
    """Free disk space in bytes below which submissions are rejected; by default 5 %, at least 256 MiB and at most 2 GiB.

    Free space within the database counts. With 0 the disk is not checked, and no space is reserved.
    """
    allow_network_filesystem: bool = _option(False, parse_flag)
    """Open the database even on NFS, SMB or the like. SQLite's locks do not work there: expect corruption."""
    tracing: str = _option("link", parse_tracing)
    """`link` or `parent`: how the span of an attempt refers to that of the submission, with a tracer provider."""
    trace_outbound: bool = _option(True, parse_flag)
    """Send `traceparent` to receivers of webhooks and to targets of tasks, with a tracer provider."""
    otel_identities: bool = _option(False, parse_flag)
    """Name submitters and operators in spans."""

    @classmethod
    def load(cls, options: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Self:
        """Build from keyword options and the environment, by default `os.environ`."""
        environ = os.environ if environ is None else environ
        known = {option.name: option for option in fields(cls)}
        for name in options:
            if name not in known:
                raise SettingsError(f"unknown option {name!r}{_nearest(name, known)}")
        values: dict[str, Any] = {}
        for name, option in known.items():
            variable = option_variable(name)
            if name in options:
                values[name] = _checked(option, options[name], name)
            elif environ.get(variable, "") != "":
                values[name] = _checked(option, environ[variable], variable)
        return cls(**values)


def option_variable(option: str) -> str:
    """The environment variable of an option."""
    return _VARIABLES.get(option) or f"QUEUE_{option.upper()}"


def _checked(option: Field[Any], value: object, source: str) -> Any:
    if value is None and option.default is None:
        return None
    try:
        parsed = option.metadata["parse"](value)
    except SettingsError as error:
        raise SettingsError(f"{source}: {error.detail}") from None
    least = option.metadata["least"]
    if least is not None and parsed < least:
        raise SettingsError(f"{source}: {value!r} is below the minimum, {least:g}")
    return parsed


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
