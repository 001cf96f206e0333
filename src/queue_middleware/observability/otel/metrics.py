"""The metrics of OpenTelemetry's conventions for messaging: how much is submitted and processed, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.metrics import get_meter
from opentelemetry.util.types import AttributeValue

from queue_middleware.instrumentation import AttemptWork, Instrumentation, SubmissionWork
from queue_middleware.jobs.models import Failure

from . import names


class MetricInstrumentation(Instrumentation):
    """Uses the meter provider of the process."""

    def __init__(self, version: str) -> None:
        meter = get_meter(names.SCOPE, version, schema_url=names.SCHEMA_URL)
        self._sent = meter.create_counter(names.SENT_MESSAGES, "{message}", "Submissions, refused ones included.")
        self._consumed = meter.create_counter(names.CONSUMED_MESSAGES, "{message}", "Attempts that were begun.")
        self._submitting = meter.create_histogram(
            names.OPERATION_DURATION,
            "s",
            "How long storing a job takes.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        self._processing = meter.create_histogram(
            names.PROCESS_DURATION, "s", "How long attempts take.", explicit_bucket_boundaries_advisory=names.LONG_SECONDS
        )

    @contextmanager
    def submission(self, work: SubmissionWork) -> Iterator[None]:
        """Counts and measures one submission."""
        attributes, began = _attributes("submit", work.job.route), time.perf_counter()
        try:
            yield
        except Exception as error:
            attributes[names.ERROR_TYPE] = type(error).__name__
            raise
        finally:
            self._sent.add(1, attributes)
            self._submitting.record(time.perf_counter() - began, attributes)

    @contextmanager
    def attempt(self, work: AttemptWork) -> Iterator[None]:
        """Counts and measures one attempt."""
        attributes, began = _attributes("process", work.claim.route), time.perf_counter()
        self._consumed.add(1, attributes)
        try:
            yield
        finally:
            if isinstance(work.outcome, Failure):
                attributes[names.ERROR_TYPE] = work.outcome.error_type.value
            elif work.outcome is not None and work.outcome.status >= 500:
                attributes[names.ERROR_TYPE] = str(work.outcome.status)
            self._processing.record(time.perf_counter() - began, attributes)


def _attributes(operation: str, route: str) -> dict[str, AttributeValue]:
    return {
        names.MESSAGING_SYSTEM: names.SYSTEM,
        names.OPERATION_NAME: operation,
        names.DESTINATION_TEMPLATE: route,
    }
