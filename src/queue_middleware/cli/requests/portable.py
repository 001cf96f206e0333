"""A request as one line of JSON, which can be changed with an editor and imported into this queue or another one."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

import msgspec

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.job_detail import KeptRequest
from queue_middleware.jobs.models import (
    JobState,
    Mount,
    NewJob,
    Priority,
    RetryCause,
    RetryPolicy,
    StoredRequest,
    WebhookKind,
)
from queue_middleware.jobs.routes import OTHER
from queue_middleware.jobs.struct import Struct
from queue_middleware.jobs.task_spec import Backoff, TaskSpec
from queue_middleware.syntax.secret_names import REDACTED, is_secret_header

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00\r\n]*")
_ENCODED = re.compile(r"[^\x00-\x20\x7f]*")


class Connection(Struct, frozen=True, forbid_unknown_fields=True):
    """How the client reached the service, as the application sees it."""

    root_path: str = ""
    client: tuple[str, int] | None = None
    """Address and port."""
    server: tuple[str, int | None] | None = None
    scheme: str = "http"
    http_version: str = "1.1"
    mount: Mount | None = None


class PortableTask(Struct, frozen=True, forbid_unknown_fields=True):
    """What was requested beyond a plain submission. An imported task gets a callback URL of its own."""

    spec: TaskSpec
    is_listed: bool


class PortableRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """One request. Only `path` is needed in a line that is imported."""

    path: str
    """Percent-encoded, with the root path."""
    method: str = "POST"
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    """The body if it is UTF-8."""
    body_base64: str | None = None
    """The body if it is not."""
    redacted: tuple[str, ...] = ()
    """What was left out. A line can be imported only if this is empty."""
    id: str | None = None
    """The exported request. An import creates a new one."""
    state: JobState | None = None
    """Of the exported request."""
    route: str = OTHER
    client: str = "127.0.0.1"
    """Whom the limits for one client count it for: `id:` and a name, or a network address."""
    priority: int = Priority.NORMAL
    """Smaller values run first."""
    max_attempts: int = 3
    retries: dict[RetryCause, int] = msgspec.field(default_factory=dict)
    """Additional attempts by cause."""
    backoff: Backoff | None = None
    webhook: str | None = None
    webhook_kinds: tuple[WebhookKind, ...] = ()
    """What the webhook reports besides the end."""
    stores_response: bool = True
    connection: Connection = Connection()
    task: PortableTask | None = None


def export(request_id: str, state: JobState, kept: KeptRequest, *, reveal: bool) -> PortableRequest:
    """The line of a request. Without `reveal` it has nothing that may be a secret: see `PortableRequest.redacted`."""
    new, request = kept.job, kept.job.request
    text, encoded = encode_body(request.body)
    whole = PortableRequest(
        path=request.raw_path.decode("latin-1"),
        method=request.method,
        query=request.query.decode("latin-1"),
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers),
        body=text,
        body_base64=encoded,
        id=request_id,
        state=state,
        route=new.route,
        client=new.client,
        priority=int(new.priority),
        max_attempts=new.retry.max_attempts,
        retries=dict(new.retry.extra),
        backoff=new.retry.backoff,
        webhook=new.webhook,
        webhook_kinds=new.webhook_kinds,
        stores_response=not new.unstored_response,
        connection=Connection(
            request.root_path, request.client, request.server, request.scheme, request.http_version, request.mount
        ),
        task=None if new.task is None else PortableTask(new.task.spec, new.task.is_listed),
    )
    return whole if reveal else _redact(whole)


def _redact(whole: PortableRequest) -> PortableRequest:
    secret_headers = [name for name, value in whole.headers if is_secret_header(name, value)]
    left_out = [f"header {name}" for name in dict.fromkeys(secret_headers)]
    left_out += [name for name in ("query", "webhook", "task") if getattr(whole, name)]
    if whole.body or whole.body_base64:
        left_out.append("body")
    if whole.connection.mount is not None:
        left_out.append("connection")  # it has the parameters of the path to the queue
    if whole.path != whole.connection.root_path + whole.route:
        left_out.append("path")  # it has parameters
    return whole.replace(
        path=REDACTED if "path" in left_out else whole.path,
        query="",  # without its names too: in `?token` the name is the secret
        headers=tuple((name, REDACTED if name in secret_headers else value) for name, value in whole.headers),
        body=None if "body" in left_out else whole.body,
        body_base64=None,
        webhook=None,
        task=None,
        connection=Connection() if "connection" in left_out else whole.connection,
        redacted=tuple(left_out),
    )


def read_line(line: bytes) -> PortableRequest:
    """The request in a line. Raises `BadRequest` with the reason."""
    try:
        found = msgspec.json.decode(line, type=PortableRequest)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"not JSON: {error}") from None
    if found.redacted or any(value == REDACTED for _, value in found.headers):
        what = ", ".join(found.redacted) or "a header"
        raise BadRequest(f"secrets were left out of this line ({what}); export it with --reveal")
    return found


def new_job(line: PortableRequest) -> NewJob:
    """The submission of a line, without its task. Raises `BadRequest` for what cannot be an HTTP request."""
    request = StoredRequest(
        _checked("method", line.method, _TOKEN),
        line.connection.root_path,
        _latin("path", _checked("path", line.path, _ENCODED)),
        _latin("query", _checked("query", line.query, _ENCODED)),
        _headers(line.headers),
        line.connection.client,
        line.connection.server,
        line.connection.scheme,
        line.connection.http_version,
        decode_body(line.body, line.body_base64),
        line.connection.mount,
    )
    if line.max_attempts < 1:
        raise BadRequest(f"max_attempts is {line.max_attempts}, and must be 1 at least")
    return NewJob(
        request,
        line.client,
        RetryPolicy(line.max_attempts, line.retries, line.backoff),
        line.priority,
        webhook=line.webhook,
        unstored_response=not line.stores_response,
        webhook_kinds=line.webhook_kinds,
        route=line.route,
    )


def encode_body(body: bytes) -> tuple[str | None, str | None]:
    """A body as text; in base64 if it is not UTF-8."""
    try:
        return body.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(body).decode()


def decode_body(text: str | None, encoded: str | None) -> bytes:
    """The body of which one form is given. Raises `BadRequest`."""
    if text is not None and encoded is not None:
        raise BadRequest("both body and body_base64 are given")
    if encoded is None:
        return (text or "").encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise BadRequest(f"body_base64: {error}") from None


def _headers(headers: Sequence[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(
        (
            _checked("header name", name, _TOKEN).lower().encode(),
            _latin(f"header {name}", _checked(f"header {name}", value, _HEADER_VALUE)),
        )
        for name, value in headers
    )


def _checked(what: str, text: str, allowed: re.Pattern[str]) -> str:
    if allowed.fullmatch(text) is None:
        raise BadRequest(f"{what}: a character is not allowed there")
    return text


def _latin(what: str, text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise BadRequest(f"{what}: contains a character that must be percent-encoded") from None
