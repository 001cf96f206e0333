"""Figures in the documents are those of the code.

Each row names the words around a figure, so that a page cannot lose it unnoticed. The constants are Python and not text in the
pages: renaming tools, type checkers and searches find them here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from queue_middleware import background, backoff, receivers, verify
from queue_middleware.asgi import headers
from queue_middleware.jobs import log_lines, outcomes
from queue_middleware.jobs.models import CHUNK_SIZE
from queue_middleware.outbound import connector, http11
from queue_middleware.receivers import jwks
from queue_middleware.runtime import status_feed
from queue_middleware.settings import Settings
from queue_middleware.stores.common import webhook_events
from queue_middleware.stores.sqlite import disk, notifier
from queue_middleware.syntax import urls
from queue_middleware.tasks import placeholders, representation, target
from queue_middleware.tasks.polling import config, response, schedule
from queue_middleware.web import path_rules, preferences, rate_limit
from queue_middleware.web.asyncqueue import endpoints as task_routes
from queue_middleware.web.asyncqueue import schema
from queue_middleware.web.fal import params, status_stream
from queue_middleware.webhooks import circuit, dispatcher, fairness
from queue_middleware.webhooks.models import ReceiverHealth
from queue_middleware.webhooks.signing import keyring, reloader
from queue_middleware.worker import early_end, executor, log_buffer

ROOT = Path(__file__).parents[2]
KIB, MIB, MINUTE, HOUR, DAY = 1024, 2**20, 60, 3600, 86400

# fmt: off
FIGURES: list[tuple[str, str, Any, Any]] = [
    # page, words on it, the constant, the figure that the words name
    ("docs/explanation/guarantees.md", "One attempt keeps at most 10,000 lines", log_buffer.MAX_LINES, 10_000),
    ("docs/explanation/guarantees.md", "they are written ten times a second at most", 1 / log_buffer.FLUSH_INTERVAL, 10),
    ("docs/explanation/guarantees.md", "within a fiftieth of a second it may send the last one only", status_feed._PAUSE, 1 / 50),  # noqa: E501
    ("docs/explanation/guarantees.md", "may be behind by a tenth of a second", status_feed._POSITIONS_PAUSE, 1 / 10),
    ("docs/explanation/guarantees.md", "with a thousand streams by a second", status_feed._POSITIONS_PAUSE_EACH * 1000, 1),
    ("docs/explanation/guarantees.md", "the slot does, for five minutes at most", executor.BACKGROUND_LIMIT, 5 * MINUTE),
    ("docs/explanation/guarantees.md", "has five seconds for its `finally` blocks", early_end.CANCEL_GRACE, 5),
    ("docs/explanation/guarantees.md", "The processes wake each other within some 50 ms", notifier._POLL_INTERVAL, 50 / 1000),
    ("docs/explanation/guarantees.md", "After a host has failed five times in a row, only probes", circuit.FAILURE_THRESHOLD, 5),  # noqa: E501
    ("docs/explanation/guarantees.md", "has been in the published set for a day", keyring.MIN_LEAD_TIME, DAY),
    ("docs/explanation/guarantees.md", "stays there for two days after another key has succeeded it", keyring.KEPT, 2 * DAY),
    ("docs/explanation/deliveries.md", "Five seconds to find and reach the host", connector.CONNECT_TIMEOUT, 5),
    ("docs/explanation/deliveries.md", "at most 64 KiB of the response are read", http11.MAX_READ, 64 * KIB),
    ("docs/explanation/deliveries.md", "its first KiB is kept for the operator", http11.MAX_BODY_PREFIX, KIB),
    ("docs/explanation/deliveries.md", "the time in `Retry-After` (a day at most)", backoff._LONGEST_RETRY_AFTER, DAY),
    ("docs/explanation/deliveries.md", "| `new` | not called yet | 1 |", fairness.FLOW_LIMITS[ReceiverHealth.NEW], 1),
    ("docs/explanation/deliveries.md", "a response within 2 s", circuit.PROMPT_SECONDS, 2),
    ("docs/explanation/deliveries.md", "with any status below 500 except 429 | 16 |", fairness.FLOW_LIMITS[ReceiverHealth.HEALTHY], 16),  # noqa: E501
    ("docs/explanation/deliveries.md", "| `slow` | slower than that | 4 |", fairness.FLOW_LIMITS[ReceiverHealth.SLOW], 4),
    ("docs/explanation/deliveries.md", "up to four times in a row | 1 |", fairness.FLOW_LIMITS[ReceiverHealth.FAILING], 1),
    ("docs/explanation/deliveries.md", "after 5 to 10 s", circuit._FIRST_PAUSE, 10),
    ("docs/explanation/deliveries.md", "then after twice as long, up to five minutes", circuit._LONGEST_PAUSE, 5 * MINUTE),
    ("docs/explanation/deliveries.md", "as long as its whole schedule takes, an hour at least", circuit.MIN_GIVE_UP_AFTER, HOUR),  # noqa: E501
    ("docs/explanation/deliveries.md", "There are 256 slots for deliveries in each process", dispatcher.LIMIT, 256),
    ("docs/explanation/deliveries.md", "the process may open fewer than 1,024 files)", dispatcher.LIMIT / dispatcher._FILES_SHARE, 1024),  # noqa: E501
    ("docs/explanation/deliveries.md", "get at most three quarters of them", fairness.UNPROVEN_SHARE, 3 / 4),
    ("docs/explanation/deliveries.md", "A result of up to 256 KiB is in memory as a whole", CHUNK_SIZE, 256 * KIB),
    ("docs/explanation/deliveries.md", "which is 64 MiB when all slots are in use", CHUNK_SIZE * dispatcher.LIMIT, 64 * MIB),
    ("docs/explanation/deliveries.md", "Progress is sent twice a second at most", 1000 / webhook_events._PAUSE, 2),
    ("docs/explanation/deliveries.md", "attempts that are in progress get three seconds", background.DRAIN_TIMEOUT, 3),
    ("docs/how-to/run-in-production.md", "`concurrency` (8) is how many", Settings.concurrency, 8),
    ("docs/how-to/run-in-production.md", "for `retention` (7 days); results up to 64 MiB", Settings.retention, 7 * DAY),
    ("docs/how-to/run-in-production.md", "results up to 64 MiB", Settings.max_response_body, 64 * MIB),
    ("docs/how-to/back-up-and-restore.md", "`lease` has run out, about a minute", Settings.lease, MINUTE),
    ("docs/how-to/docker.md", "below 5 % of the disk, at least 256 MiB", disk._MIN_RESERVED, 256 * MIB),
    ("docs/how-to/docker.md", "and at most 2 GiB, submissions get 503", disk._MAX_RESERVED, 2048 * MIB),
    ("docs/how-to/fastapi.md", "waits up to `shutdown_timeout` (20 s)", Settings.shutdown_timeout, 20),
    ("docs/explanation/guarantees.md", "for longer than the `lease` (60 s)", Settings.lease, 60),
    ("docs/reference/routes.md", "the response is kept for an hour at most", outcomes.UNSTORED_RESPONSE_TTL_MS / 1000, HOUR),
    ("docs/reference/routes.md", "one of 10 kB or more", outcomes.LARGE_RESPONSE_BYTES, 10_000),
    ("docs/reference/routes.md", "or more for six minutes", outcomes.LARGE_UNSTORED_RESPONSE_TTL_MS / 1000, 6 * MINUTE),
    ("docs/reference/routes.md", "at most 8,192 characters, the traceback", log_lines.MAX_MESSAGE_LENGTH, 8192),
    ("docs/reference/routes.md", "and those that the handler gives, 16 at most", log_lines.MAX_LABELS, 16),
    ("docs/reference/routes.md", "After 15 seconds without an event, a comment is sent", status_stream.PING, 15),
    ("docs/reference/routes.md", "ten times a second for up to a hundred", 1 / status_feed._POSITIONS_PAUSE, 10),
    ("docs/reference/routes.md", "once a second for a thousand", 1 / (1000 * status_feed._POSITIONS_PAUSE_EACH), 1),
    ("docs/reference/routes.md", "has five seconds for its `finally` blocks", early_end.CANCEL_GRACE, 5),
    ("docs/reference/current-job.md", "at most 256 characters", log_lines.MAX_LABEL_LENGTH, 256),
    ("docs/reference/current-job.md", "16 at most, of 256 characters", (log_lines.MAX_LABELS, log_lines.MAX_LABEL_LENGTH), (16, 256)),  # noqa: E501
    ("docs/reference/current-job.md", "It is written ten times a second at most", 1 / log_buffer.FLUSH_INTERVAL, 10),
    ("docs/how-to/logs-and-progress.md", "10,000 lines, and `max_logs` bytes", log_buffer.MAX_LINES, 10_000),
    ("docs/how-to/logs-and-progress.md", "of messages and labels (1 MiB)", Settings().max_logs, MIB),
    ("docs/how-to/logs-and-progress.md", "8,192 characters, traceback included", log_lines.MAX_MESSAGE_LENGTH, 8192),
    ("docs/how-to/logs-and-progress.md", "16 of a line, 256 characters each", (log_lines.MAX_LABELS, log_lines.MAX_LABEL_LENGTH), (16, 256)),  # noqa: E501
    ("docs/how-to/logs-and-progress.md", "the last of each tenth of a second", log_buffer.FLUSH_INTERVAL, 1 / 10),
    ("docs/reference/asyncqueue.md", "seconds for one attempt, a day at most", schema.MAX_TIMEOUT, DAY),
    ("docs/reference/asyncqueue.md", "`max_wait` (30 days) at most", Settings().max_wait, 30 * DAY),
    ("docs/reference/asyncqueue.md", "`max_delay` (30 days) from now at most", Settings().max_delay, 30 * DAY),
    ("docs/reference/asyncqueue.md", "| `maxRetries` | 3 | 0 to 10 |", schema.MAX_RETRIES, 10),
    ("docs/reference/asyncqueue.md", "| `priority` | 5 | 1 to 10, high first", representation.PRIORITIES, 10),
    ("docs/reference/asyncqueue.md", "Redirects of an external host are followed, ten at most", target.MAX_REDIRECTS, 10),
    ("docs/reference/routes.md", "more than 60 counts as 60", preferences.MAX_WAIT, 60),
    ("docs/how-to/submit-once-and-wait.md", "more than 60 seconds count as 60", preferences.MAX_WAIT, 60),
    ("docs/reference/asyncqueue.md", "after that many seconds (25 at most)", task_routes.MAX_POLL_SECONDS, 25),
    ("docs/reference/asyncqueue.md", "the newest tasks first, 100 at most", task_routes.MAX_PAGE, 100),
    ("docs/reference/asyncqueue.md", "up to 100 times in total", placeholders.MAX_PLACEHOLDERS, 100),
    ("docs/reference/asyncqueue.md", "from the 31st in a minute on", (rate_limit.MAX_FAILURES, rate_limit.WINDOW), (30, MINUTE)),  # noqa: E501
    ("docs/reference/errors.md", "more than 30 ids in a minute that", (rate_limit.MAX_FAILURES, rate_limit.WINDOW), (30, MINUTE)),  # noqa: E501
    ("docs/reference/errors.md", "path and query of the queued call are longer than 2,048 bytes",
        path_rules.MAX_TARGET_BYTES, 2048),
    ("docs/reference/errors.md", "the header block is larger than 32 KiB", headers.MAX_HEADER_BYTES, 32 * KIB),
    ("docs/reference/providers.md", "seconds between two polls, 0.1 to 3600",
        (config.MIN_INTERVAL, config.MAX_INTERVAL), (0.1, HOUR)),
    ("docs/reference/providers.md", "up to a week", config.MAX_DURATION, 7 * DAY),
    ("docs/reference/providers.md", "the new URL is polled, five times at most", response.MAX_REDIRECTS, 5),
    ("docs/reference/providers.md", "the same twice in a row", response._RETRIES_OF_FINAL, 2),
    ("docs/reference/providers.md", "after `interval` but at most 5 s, doubled each time up to a minute",
        (schedule._FIRST_RETRY_DELAY, schedule._MAX_RETRY_DELAY), (5, MINUTE)),
    ("docs/reference/providers.md", "replaces the interval, from a second to an hour",
        (schedule.MIN_RETRY_AFTER, schedule.MAX_RETRY_AFTER), (1, HOUR)),
    ("docs/reference/options.md", "a lost process. 10 at most", params.MAX_ATTEMPTS, 10),
    ("docs/reference/options.md", "at least 256 MiB and at most 2 GiB",
        (disk._MIN_RESERVED, disk._MAX_RESERVED), (256 * MIB, 2048 * MIB)),
    ("docs/reference/options.md", "of one attempt, and 10,000 lines at most", log_buffer.MAX_LINES, 10_000),
    ("docs/reference/receivers.md", "| `max_body` | `68157440` |", receivers.LARGEST_BODY, 65 * MIB),
    ("docs/how-to/receive-webhooks.md", "above `max_body` bytes (65 MiB)", receivers.LARGEST_BODY, 65 * MIB),
    ("docs/how-to/receive-webhooks.md", "more than `tolerance` (300 s) from yours", verify.TOLERANCE, 300),
    ("docs/how-to/receive-webhooks.md", "keeps for `cache` seconds, a day at most", jwks.MAX_CACHE, DAY),
    ("docs/how-to/receive-webhooks.md", "and at most every 30 seconds", jwks._REFETCH_INTERVAL, 30),
    ("SECURITY.md", "refused after 300 s", verify.TOLERANCE, 300),
    ("SECURITY.md", "the key set is fetched twice a minute at most", MINUTE / jwks._REFETCH_INTERVAL, 2),
    ("SECURITY.md", "an unverified body is read up to 65 MiB", receivers.LARGEST_BODY, 65 * MIB),
    ("docs/how-to/rotate-keys.md", "| after 25 hours | signs |", keyring.LEAD_TIME, 25 * HOUR),
    ("docs/how-to/rotate-keys.md", "| two days later | signs |", keyring.KEPT, 2 * DAY),
    ("docs/how-to/rotate-keys.md", "that uses the file notices within seconds", reloader.CHECK_INTERVAL, 2),
    ("docs/reference/command.md", "time until the new key signs: 24h at least", keyring.MIN_LEAD_TIME, DAY),
    ("docs/how-to/behind-nginx.md", "a status stream sends data every 15 s", status_stream.PING, 15),
]
# fmt: on


@pytest.mark.parametrize(("page", "sentence", "real", "figure"), FIGURES, ids=[f"{row[0]}:{row[1][:40]}" for row in FIGURES])
def test_documented_figures_are_those_of_the_code(page: str, sentence: str, real: Any, figure: Any) -> None:
    assert sentence in " ".join((ROOT / page).read_text().split())
    assert real == pytest.approx(figure, rel=1e-9)


def test_a_webhook_url_may_be_as_long_as_a_path() -> None:
    assert urls.MAX_URL == path_rules.MAX_TARGET_BYTES
