"""Combines instrumentations into one, so that a faulty one cannot stop or change the work of the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from queue_middleware.errors import QueueError
from queue_middleware.events import Emit, ServiceError
from queue_middleware.instrumentation import (
    ActionWork,
    AttemptWork,
    CallbackWork,
    CallWork,
    Instrumentation,
    Instruments,
    SubmissionWork,
)
from queue_middleware.jobs.models import Claim
from queue_middleware.jobs.store import JobStore

_Enter = Callable[[Any], AbstractContextManager[object]]
_NOTHING = nullcontext()


def combine(instrumentations: Iterable[Instrumentation], store: JobStore, emit: Emit) -> Instruments | None:
    """One object for all instrumentations; None if there is none, which costs nothing. Their errors are emitted."""
    parts = tuple(instrumentations)
    return _Combination(parts, store, emit) if parts else None


class _Combination(Instruments):
    """Enters several instrumentations in order, and exits them in reverse order."""

    def __init__(self, parts: tuple[Instrumentation, ...], store: JobStore, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._submission = _overridden(parts, "submission")
        self._attempt = _overridden(parts, "attempt")
        self._call = _overridden(parts, "call")
        self._callback = _overridden(parts, "callback")
        self._action = _overridden(parts, "action")

    def submission(self, work: SubmissionWork) -> AbstractContextManager[object]:
        return _Entered(self._submission, work, self._report) if self._submission else _NOTHING

    def attempt(self, work: AttemptWork) -> AbstractContextManager[object]:
        return _Entered(self._attempt, work, self._report) if self._attempt else _NOTHING

    def call(self, work: CallWork) -> AbstractContextManager[object]:
        return _Entered(self._call, work, self._report) if self._call else _NOTHING

    def callback(self, work: CallbackWork) -> AbstractContextManager[object]:
        return _Entered(self._callback, work, self._report) if self._callback else _NOTHING

    def action(self, work: ActionWork) -> AbstractContextManager[object]:
        return _Entered(self._action, work, self._report) if self._action else _NOTHING

    def keep_trace(self, claim: Claim) -> None:
        if claim.trace is not None:
            self._store.keep_trace(claim, claim.trace, self._on_kept)

    def _on_kept(self, result: bool | QueueError) -> None:
        if isinstance(result, QueueError):
            self._report(result)

    async def trace_of(self, key: int) -> str | None:
        try:
            return await self._store.trace_of(key)
        except QueueError as error:
            self._report(error)
            return None

    def _report(self, defect: Exception) -> None:
        self._emit(ServiceError("instrumentation", defect, 0.0))


def _overridden(parts: Iterable[Instrumentation], method: str) -> tuple[_Enter, ...]:
    """The method of each part that does not inherit it from the base, which does nothing."""
    methods = [getattr(part, method) for part in parts]
    return tuple([enter for enter in methods if getattr(enter, "__func__", None) is not getattr(Instrumentation, method)])


class _Entered:
    """The context managers of one work. Those that cannot be entered are left out."""

    __slots__ = ("_enter", "_entered", "_report", "_work")

    def __init__(self, enter: tuple[_Enter, ...], work: object, report: Callable[[Exception], None]) -> None:
        self._enter = enter
        self._work = work
        self._report = report
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
