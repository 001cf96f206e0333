"""Without the extra `sentry`, and without structlog, the queue works and imports nothing of them."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

sys.modules["sentry_sdk"] = sys.modules["structlog"] = None  # importing them fails, as if they were not installed

from queue_middleware import QueueMiddleware
from queue_middleware.logging import RequestFilter, add_request

add_request(None, "info", {})
RequestFilter()
import queue_middleware.runtime.runtime

try:
    import queue_middleware.observability.sentry
except ImportError as error:
    print(error)
"""
LOADED = """
import sys

from queue_middleware import QueueMiddleware
import queue_middleware.logging

print([name for name in ("sentry_sdk", "structlog") if name in sys.modules])
"""


def output_of(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_the_observer_names_the_extra_that_is_missing() -> None:
    assert output_of(PROGRAM) == "SentryObserver needs the extra 'sentry': pip install 'queue-middleware[sentry]'"


def test_nothing_of_them_is_imported_if_they_are_installed() -> None:
    assert output_of(LOADED) == "[]"
