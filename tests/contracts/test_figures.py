"""Figures in the documents are those of the code: whoever changes one is reminded of the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from queue_middleware import (
    attempt,
    cadence,
    circuit,
    delivery,
    dialler,
    headers,
    http11,
    keyring,
    keyset,
    keywatch,
    lifecycle,
    logbook,
    logline,
    receivers,
    rounds,
    target,
    urls,
    verdict,
    verify,
    watch,
)
from queue_middleware.models import PART, Standing
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import filesystem, listeners, news
from queue_middleware.web import asyncqueue as task_routes
from queue_middleware.web import guesses, streams
from queue_middleware.wire import asyncqueue, fal, knobs, placeholder, pollconfig, readings, taskrequests

ROOT = Path(__file__).parents[2]
KIB, MIB, MINUTE, HOUR, DAY = 1024, 2**20, 60, 3600, 86400

# fmt: off
FIGURES: list[tuple[str, str, Any, Any]] = [
    # document, what it says, what the code says, the same as a number
    ("docs/explanation/guarantees.md", "One attempt keeps at most 10,000 lines", logbook.LINES, 10_000),
    ("docs/explanation/guarantees.md", "they are written ten times a second at most", 1 / logbook.GATHER, 10),
    ("docs/explanation/guarantees.md", "within a fiftieth of a second it may tell the last one only", watch._PAUSE, 1 / 50),
    ("docs/explanation/guarantees.md", "may be behind by a tenth of a second", watch._POSITIONS, 1 / 10),
    ("docs/explanation/guarantees.md", "with a thousand listeners by a second", watch._POSITIONS_EACH * 1000, 1),
    ("docs/explanation/guarantees.md", "the slot does, for five minutes at most", attempt.TAIL, 5 * MINUTE),
    ("docs/explanation/guarantees.md", "has five seconds for its `finally` blocks", attempt.GRACE, 5),
    ("docs/explanation/guarantees.md", "They wake each other within some 50 ms", listeners._WATCH, 50 / 1000),
    ("docs/explanation/guarantees.md", "A host that fails five times in a row is left alone", circuit.THRESHOLD, 5),
    ("docs/explanation/guarantees.md", "has been in the published set for a day", keyring.LEAST_NOTICE, DAY),
    ("docs/explanation/guarantees.md", "stays there for two after it was followed by another", keyring.KEPT, 2 * DAY),
    ("docs/explanation/deliveries.md", "Five seconds to find and reach the host", dialler.CONNECT_TIMEOUT, 5),
    ("docs/explanation/deliveries.md", "at most 64 KiB of the answer are read", http11.MAX_READ, 64 * KIB),
    ("docs/explanation/deliveries.md", "its first KiB is kept for the operator", http11.MAX_KEPT, KIB),
    ("docs/explanation/deliveries.md", "and not before it says (a day at most)", verdict._LONGEST_RETRY_AFTER, DAY),
    ("docs/explanation/deliveries.md", "| `new` | not called yet | 1 |", circuit.AT_ONCE[Standing.NEW], 1),
    ("docs/explanation/deliveries.md", "an answer within 2 s", circuit.PROMPT, 2),
    ("docs/explanation/deliveries.md", "below 500 and but for 429 | 16 |", circuit.AT_ONCE[Standing.GOOD], 16),
    ("docs/explanation/deliveries.md", "| `slow` | slower than that | 4 |", circuit.AT_ONCE[Standing.SLOW], 4),
    ("docs/explanation/deliveries.md", "up to four times in a row | 1 |", circuit.AT_ONCE[Standing.FAILING], 1),
    ("docs/explanation/deliveries.md", "after 5 to 10 s", circuit._FIRST_PAUSE, 10),
    ("docs/explanation/deliveries.md", "then after twice as long, up to five minutes", circuit._LONGEST_PAUSE, 5 * MINUTE),
    ("docs/explanation/deliveries.md", "as long as its whole schedule takes, an hour at least", circuit.LEAST_PATIENCE, HOUR),
    ("docs/explanation/deliveries.md", "There are 256 places in each process", delivery.LIMIT, 256),
    ("docs/explanation/deliveries.md", "where it may open fewer than 1,024 files)", delivery.LIMIT / delivery._FILES, 1024),
    ("docs/explanation/deliveries.md", "get at most three quarters of them", delivery._STRANGERS, 3 / 4),
    ("docs/explanation/deliveries.md", "Of a result up to 256 KiB all is in memory", PART, 256 * KIB),
    ("docs/explanation/deliveries.md", "which is 64 MiB when all places are taken", PART * delivery.LIMIT, 64 * MIB),
    ("docs/explanation/deliveries.md", "Progress is told twice a second at most", 1000 / news._PAUSE, 2),
    ("docs/explanation/deliveries.md", "attempts that are on their way get three seconds", rounds.GRACE, 3),
    ("docs/how-to/run-in-production.md", "`concurrency` (8) is how many", Settings.concurrency, 8),
    ("docs/how-to/run-in-production.md", "for `retention` (7 days); results up to 64 MiB", Settings.retention, 7 * DAY),
    ("docs/how-to/run-in-production.md", "results up to 64 MiB", Settings.max_response_body, 64 * MIB),
    ("docs/how-to/run-in-production.md", "`lease` has run out, about a minute", Settings.lease, MINUTE),
    ("docs/how-to/docker.md", "below 5 % of the disk, at least 256 MiB", filesystem._LEAST_FREE, 256 * MIB),
    ("docs/how-to/docker.md", "and at most 2 GiB, submissions return 503", filesystem._MOST_FREE, 2048 * MIB),
    ("docs/how-to/fastapi.md", "waits up to `shutdown_timeout` (20 s)", Settings.shutdown_timeout, 20),
    ("docs/explanation/guarantees.md", "for longer than the `lease` (60 s)", Settings.lease, 60),
    ("docs/reference/routes.md", "the answer is kept for an hour at most", lifecycle.SHORT / 1000, HOUR),
    ("docs/reference/routes.md", "one of 10 kB or more", lifecycle.LARGE, 10_000),
    ("docs/reference/routes.md", "or more for six minutes", lifecycle.SHORT_IF_LARGE / 1000, 6 * MINUTE),
    ("docs/reference/routes.md", "at most 8,192 characters, the traceback", logline.MESSAGE, 8192),
    ("docs/reference/routes.md", "and those that the handler gives, 16 at most", logline.LABELS, 16),
    ("docs/reference/routes.md", "After 15 seconds of silence comes a comment", streams.PING, 15),
    ("docs/reference/routes.md", "ten times a second for up to a hundred", 1 / watch._POSITIONS, 10),
    ("docs/reference/routes.md", "once a second for a thousand", 1 / (1000 * watch._POSITIONS_EACH), 1),
    ("docs/reference/routes.md", "has five seconds for its `finally` blocks", attempt.GRACE, 5),
    ("docs/reference/current-job.md", "at most 256 characters", logline.LABEL, 256),
    ("docs/reference/current-job.md", "16 at most, of 256 characters", (logline.LABELS, logline.LABEL), (16, 256)),
    ("docs/reference/current-job.md", "It is written ten times a second at most", 1 / logbook.GATHER, 10),
    ("docs/how-to/logs-and-progress.md", "10,000 lines, and `max_logs` bytes", logbook.LINES, 10_000),
    ("docs/how-to/logs-and-progress.md", "of messages and labels (1 MiB)", Settings().max_logs, MIB),
    ("docs/how-to/logs-and-progress.md", "8,192 characters, traceback included", logline.MESSAGE, 8192),
    ("docs/how-to/logs-and-progress.md", "16 for each line, 256 characters each", (logline.LABELS, logline.LABEL), (16, 256)),
    ("docs/how-to/logs-and-progress.md", "the last one in each tenth of a second", logbook.GATHER, 1 / 10),
    ("docs/reference/asyncqueue.md", "seconds for one attempt, a day at most", taskrequests.LONGEST_TIMEOUT, DAY),
    ("docs/reference/asyncqueue.md", "`max_wait` (30 days) at most", Settings().max_wait, 30 * DAY),
    ("docs/reference/asyncqueue.md", "`max_delay` (30 days) from now on at most", Settings().max_delay, 30 * DAY),
    ("docs/reference/asyncqueue.md", "| `maxRetries` | 3 | 0 to 10 |", taskrequests.MOST_RETRIES, 10),
    ("docs/reference/asyncqueue.md", "| `priority` | 5 | 1 to 10, high first", taskrequests.PRIORITIES, 10),
    ("docs/reference/asyncqueue.md", "Redirects of a host outside are followed, ten at most", target.MOST_REDIRECTS, 10),
    ("docs/reference/asyncqueue.md", "after as many seconds (25 at most)", task_routes.LONGEST_POLL, 25),
    ("docs/reference/asyncqueue.md", "the newest first, 100 at most", asyncqueue.LARGEST_PAGE, 100),
    ("docs/reference/asyncqueue.md", "up to a hundred times in all", placeholder.MOST, 100),
    ("docs/reference/asyncqueue.md", "from the 31st within a minute on", (guesses.MOST, guesses.WINDOW), (30, MINUTE)),
    ("docs/reference/errors.md", "more than 30 ids in a minute that", (guesses.MOST, guesses.WINDOW), (30, MINUTE)),
    ("docs/reference/errors.md", "path and query of the queued call are longer than 2,048 bytes", fal.LONGEST_TARGET, 2048),
    ("docs/reference/errors.md", "the header block is larger than 32 KiB", headers.LARGEST_BLOCK, 32 * KIB),
    ("docs/reference/providers.md", "seconds between two questions, 0.1 to 3600",
        (pollconfig.LEAST_INTERVAL, pollconfig.LONGEST_INTERVAL), (0.1, HOUR)),
    ("docs/reference/providers.md", "up to a week", pollconfig.LONGEST_DURATION, 7 * DAY),
    ("docs/reference/providers.md", "asked there, five times at most", readings.MOST_REDIRECTS, 5),
    ("docs/reference/providers.md", "the same twice in a row", readings._PATIENCE, 2),
    ("docs/reference/providers.md", "after `interval` but at most 5 s, doubled each time up to a minute",
        (cadence._FIRST_PAUSE, cadence._LONGEST_PAUSE), (5, MINUTE)),
    ("docs/reference/providers.md", "counts instead of the interval, from a second to an hour",
        (cadence.SHORTEST, cadence.LONGEST_WISH), (1, HOUR)),
    ("docs/reference/options.md", "a lost process. 10 at most", knobs.MOST_ATTEMPTS, 10),
    ("docs/reference/options.md", "at least 256 MiB and at most 2 GiB",
        (filesystem._LEAST_FREE, filesystem._MOST_FREE), (256 * MIB, 2048 * MIB)),
    ("docs/reference/options.md", "of one attempt, and 10,000 lines at most", logbook.LINES, 10_000),
    ("docs/reference/receivers.md", "| `max_body` | `68157440` |", receivers.LARGEST_BODY, 65 * MIB),
    ("docs/how-to/receive-webhooks.md", "above `max_body` bytes (65 MiB)", receivers.LARGEST_BODY, 65 * MIB),
    ("docs/how-to/receive-webhooks.md", "more than `tolerance` (300 s) from yours", verify.TOLERANCE, 300),
    ("docs/how-to/receive-webhooks.md", "keeps for `cache` seconds, a day at most", keyset.LONGEST_CACHE, DAY),
    ("docs/how-to/receive-webhooks.md", "and at most every 30 seconds", keyset._REFETCH_PAUSE, 30),
    ("SECURITY.md", "refused after 300 s", verify.TOLERANCE, 300),
    ("SECURITY.md", "the key set is fetched twice a minute at most", MINUTE / keyset._REFETCH_PAUSE, 2),
    ("SECURITY.md", "what is unverified is read up to 65 MiB", receivers.LARGEST_BODY, 65 * MIB),
    ("docs/how-to/rotate-keys.md", "| after 25 hours | signs |", keyring.NOTICE, 25 * HOUR),
    ("docs/how-to/rotate-keys.md", "| two days later | signs |", keyring.KEPT, 2 * DAY),
    ("docs/how-to/rotate-keys.md", "that uses the file notices within seconds", keywatch.LOOK_EVERY, 2),
    ("docs/reference/command.md", "until the new key signs: `24h` at least", keyring.LEAST_NOTICE, DAY),
    ("docs/how-to/behind-nginx.md", "a status stream sends something every 15 s", streams.PING, 15),
]
# fmt: on


@pytest.mark.parametrize(("page", "sentence", "real", "figure"), FIGURES, ids=[f"{row[0]}:{row[1][:40]}" for row in FIGURES])
def test_the_figure_is_the_real_one(page: str, sentence: str, real: Any, figure: Any) -> None:
    assert sentence in " ".join((ROOT / page).read_text().split())
    assert real == pytest.approx(figure, rel=1e-9)


def test_a_webhook_url_may_be_as_long_as_a_path() -> None:
    assert urls.MAX_URL == fal.LONGEST_TARGET
