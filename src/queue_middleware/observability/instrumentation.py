"""Combines instrumentations into one, so that a faulty one cannot stop or change the work of the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from queue_middleware.events import Emit, ServiceError
from queue_middleware.instrumentation import AttemptWork, CallWork, Instrumentation, SubmissionWork

_Enter = Callable[[Any], AbstractContextManager[object]]


def combine(instrumentations: Iterable[Instrumentation], emit: Emit) -> Instrumentation | None:
    """One instrumentation for all of them; None if there is none, which costs nothing. Their errors are emitted."""
    found = tuple(instrumentations)
    return _Combination(found, emit) if found else None


class _Combination(Instrumentation):
    """Enters several instrumentations in order, and exits them in reverse order."""

    def __init__(self, parts: tuple[Instrumentation, ...], emit: Emit) -> None:
        self._emit = emit
        self._submission = tuple(part.submission for part in parts)
        self._attempt = tuple(part.attempt for part in parts)
        self._call = tuple(part.call for part in parts)

    def submission(self, work: SubmissionWork) -> AbstractContextManager[object]:
        return _Entered(self._submission, work, self._emit)

    def attempt(self, work: AttemptWork) -> AbstractContextManager[object]:
        return _Entered(self._attempt, work, self._emit)

    def call(self, work: CallWork) -> AbstractContextManager[object]:
        return _Entered(self._call, work, self._emit)


class _Entered:
    """The context managers of one work. Those that cannot be entered are left out."""

    __slots__ = ("_emit", "_enter", "_entered", "_work")

    def __init__(self, enter: tuple[_Enter, ...], work: object, emit: Emit) -> None:
        self._enter = enter
        self._work = work
        self._emit = emit
        self._entered: list[AbstractContextManager[object]] = []

    def __enter__(self) -> None:
        for enter in self._enter:
            try:
                manager = enter(self._work)
                manager.__enter__()
            except Exception as defect:
                self._report(defect)
            else:
                self._entered.append(manager)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        while self._entered:
            try:
                self._entered.pop().__exit__(kind, error, traceback)
            except Exception as defect:
                if defect is not error:
                    self._report(defect)

    def _report(self, defect: Exception) -> None:
        self._emit(ServiceError("instrumentation", defect, 0.0))
