"""Names of spans, attributes and metrics: all that depends on OpenTelemetry's semantic conventions is here.

Those of messaging are in development, so a later version of this package may change these names; the changelog lists such
changes. `docs/reference/spans.md` describes them.
"""

from __future__ import annotations

SCOPE = "queue_middleware"
"""The instrumentation scope."""
SCHEMA_URL = "https://opentelemetry.io/schemas/1.40.0"
"""The version of the conventions."""
SYSTEM = "queue_middleware"

# --- spans

SUBMIT = "submit {route}"
PROCESS = "process {route}"
CALL = "{method}"
CALLBACK = "receive {channel}"
ACTION = "{action}"

# --- attributes of the conventions

MESSAGING_SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION_TEMPLATE = "messaging.destination.template"
MESSAGE_ID = "messaging.message.id"
MESSAGE_BODY_SIZE = "messaging.message.body.size"
HTTP_METHOD = "http.request.method"
HTTP_RESEND_COUNT = "http.request.resend_count"
HTTP_STATUS = "http.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
URL_FULL = "url.full"
ERROR_TYPE = "error.type"
ENDUSER_ID = "enduser.id"

SEND = "send"
PROCESSING = "process"
SETTLE = "settle"
"""Values of `messaging.operation.type`."""

# --- attributes of this package

REQUEST_ID = "queue_middleware.request_id"
POSITION = "queue_middleware.position"
EXISTING = "queue_middleware.existing"
ATTEMPT = "queue_middleware.attempt"
WAIT = "queue_middleware.wait"
WEBHOOK_KIND = "queue_middleware.webhook.kind"
PROVIDER = "queue_middleware.provider"
CHANNEL = "queue_middleware.channel"
RESULT = "queue_middleware.result"
COUNT = "queue_middleware.count"
FRACTION = "queue_middleware.progress.fraction"

# --- events of spans

PROGRESS = "progress"
HANDED_BACK = "handed_back"

# --- metrics

SENT_MESSAGES = "messaging.client.sent.messages"
OPERATION_DURATION = "messaging.client.operation.duration"
CONSUMED_MESSAGES = "messaging.client.consumed.messages"
PROCESS_DURATION = "messaging.process.duration"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The boundaries that the conventions recommend for durations."""
LONG_SECONDS = (*SECONDS, 30, 60, 120, 300, 600, 1800, 3600)
"""Boundaries for attempts, which may take an hour."""
