"""Names of spans, attributes and metrics: all that depends on OpenTelemetry's semantic conventions is here.

Those of messaging are in development, so a later version of this package may change these names; the changelog lists such
changes. `docs/reference/spans.md` describes them.
"""

from __future__ import annotations

from queue_middleware.observability.metrics import catalog

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

GAUGES = {
    catalog.REQUESTS: ("queue_middleware.requests", "{request}"),
    catalog.OLDEST: ("queue_middleware.oldest_claimable", "s"),
    catalog.SLOTS: ("queue_middleware.slots.limit", "{slot}"),
    catalog.SLOTS_BUSY: ("queue_middleware.slots.busy", "{slot}"),
    catalog.SLOTS_STUCK: ("queue_middleware.slots.stuck", "{slot}"),
    catalog.PROCESSES: ("queue_middleware.processes", "{process}"),
    catalog.STREAMS: ("queue_middleware.streams", "{stream}"),
    catalog.PAUSED: ("queue_middleware.paused", "1"),
    catalog.STREAMS: ("queue_middleware.streams", "{stream}"),
    catalog.WEBHOOKS: ("queue_middleware.webhooks", "{webhook}"),
    catalog.WEBHOOK_OLDEST: ("queue_middleware.webhook.oldest_due", "s"),
    catalog.RECEIVERS: ("queue_middleware.receivers", "{receiver}"),
    catalog.DATABASE_SIZE: ("queue_middleware.database.size", "By"),
    catalog.DISK_FREE: ("queue_middleware.disk.free", "By"),
    catalog.DISK_FLOOR: ("queue_middleware.disk.floor", "By"),
    catalog.QUEUE_LIMIT: ("queue_middleware.queue_limit", "{request}"),
}
"""Name and unit of each gauge of the catalog. `build_info` is left out: the scope has the version."""
LABELS = {
    "route": DESTINATION_TEMPLATE,
    "state": "queue_middleware.state",
    "health": "queue_middleware.receiver.health",
    "part": "queue_middleware.database.part",
}
"""The attribute for each label of these gauges."""
DATABASE = "queue_middleware.database.name"
"""An attribute of all gauges: a process may run several queues, whose numbers must not replace each other."""
