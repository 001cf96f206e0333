"""The events of a service that fails and works again."""

from __future__ import annotations

import time

from . import Emit, Recovered, ServiceError


class ErrorStreak:
    """Consecutive errors of one service: emits each as `ServiceError`, and the first success after them as `Recovered`."""

    def __init__(self, where: str, emit: Emit) -> None:
        self._where, self._emit = where, emit
        self.failures, self._since = 0, 0.0

    def met(self, error: BaseException, retry_in: float) -> None:
        """Report an error after which the work is repeated in `retry_in` seconds."""
        if not self.failures:
            self._since = time.monotonic()
        self.failures += 1
        self._emit(ServiceError(self._where, error, retry_in))

    def over(self) -> None:
        """Report a success."""
        if self.failures:
            failures, self.failures = self.failures, 0
            self._emit(Recovered(self._where, failures, time.monotonic() - self._since))
