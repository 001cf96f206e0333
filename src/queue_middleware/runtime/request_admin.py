"""What operators do to requests: list and show them, cancel them, start them early, and submit them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import TracebackType

from msgspec import to_builtins
from msgspec.json import encode

from queue_middleware.errors import QueueError, SelectionDiffers, UnknownRequest
from queue_middleware.events import Emit, Finished, Operated, Submitted, is_observed
from queue_middleware.jobs.acts import ActReport, Changes
from queue_middleware.jobs.audit import Action, checked_operator
from queue_middleware.jobs.job_detail import JobDetail
from queue_middleware.jobs.job_list import JobFilter, JobPage, ListedJob, ListPosition
from queue_middleware.jobs.models import CancelOutcome, JobState, NewJob
from queue_middleware.jobs.operator_store import OperatorStore
from queue_middleware.jobs.outcomes import CANCELLED
from queue_middleware.jobs.states import FINAL
from queue_middleware.jobs.store import JobStore
from queue_middleware.jobs.timeline import TimelineEntry
from queue_middleware.tasks.secret_ids import SecretIds

_BATCH = 500
"""Requests that are changed with one call of the store."""
_COPIES = 64
_COPIED_BYTES = 4 * 2**20
"""Copies in one transaction, and the bytes of their bodies after which it is committed."""
_OPEN = frozenset(JobState) - FINAL
_DELAYED = frozenset({JobState.DELAYED})


class RequestAdmin:
    """The operations behind `queue.requests`, `queue.cancel`, `queue.replay` and the like."""

    def __init__(
        self,
        jobs: JobStore,
        operations: OperatorStore,
        secret_ids: SecretIds,
        emit: Emit,
        count: Callable[[str], None] | None = None,
    ) -> None:
        """`count` is called with the route of each copy, as metrics count submissions."""
        self._count = count
        self._jobs = jobs
        self._operations = operations
        self._secret_ids = secret_ids
        self._emit = emit

    # --- reading

    async def page(self, wanted: JobFilter, after: ListPosition | None = None, limit: int = 100) -> JobPage:
        """A page of the selected requests, newest first."""
        return await self._jobs.page(wanted, after, limit)

    async def detail(self, request_id: str) -> JobDetail:
        """Everything about one request except bodies and headers. Raises `UnknownRequest`, `BadRequest`."""
        return await self._operations.detail(request_id)

    async def timeline(self, request_id: str) -> list[TimelineEntry]:
        """What happened to a request, in order of time. Raises `UnknownRequest`, `BadRequest`."""
        return await self._operations.timeline(request_id)

    # --- cancelling

    async def cancel(self, request_id: str, operator: str) -> CancelOutcome:
        """Cancel one request, or ask its worker to. Raises `UnknownRequest`, `BadRequest`."""
        operator, job = checked_operator(operator), await self._jobs.job(request_id)
        state = (await self._operations.cancel_many([job.key], operator, job.request_id)).get(job.key)
        if state is None:
            return CancelOutcome.FINISHED
        if state is JobState.CANCELLED:
            self._emit(Finished.of(job.request_id, 0, CANCELLED, 0.0))
        self._emit(Operated(operator, Action.CANCEL, job.request_id, 1))
        return CancelOutcome.RUNNING if state is JobState.RUNNING else CancelOutcome.CANCELLED

    async def cancel_selected(self, wanted: JobFilter, operator: str, expect: int | None) -> ActReport:
        """Cancel those of the selected requests that have not ended. Raises `SelectionDiffers`, `BadRequest`."""
        operator, target = checked_operator(operator), _target_of(wanted)
        act = _Act(await self._selected(wanted, _OPEN, expect))
        with act:
            for batch in act.batches():
                states = await self._operations.cancel_many([one.job.key for one in batch], operator, target)
                act.done += len(states)
                if is_observed(self._emit, Finished):
                    for one in batch:
                        if states.get(one.job.key) is JobState.CANCELLED:
                            self._emit(Finished.of(one.job.request_id, 0, CANCELLED, 0.0))
        return self._report(operator, Action.CANCEL, target, act)

    # --- starting early

    async def run_now(self, request_id: str, operator: str) -> bool:
        """Make a delayed request due now; False if it is not delayed. Raises `UnknownRequest`, `BadRequest`."""
        operator, job = checked_operator(operator), await self._jobs.job(request_id)
        if not await self._operations.run_now([job.key], operator, job.request_id):
            return False
        self._emit(Operated(operator, Action.RUN_NOW, job.request_id, 1))
        return True

    async def run_selected_now(self, wanted: JobFilter, operator: str, expect: int | None) -> ActReport:
        """Make those of the selected requests that are delayed due now. Raises `SelectionDiffers`, `BadRequest`."""
        operator, target = checked_operator(operator), _target_of(wanted)
        act = _Act(await self._selected(wanted, _DELAYED, expect))
        with act:
            for batch in act.batches():
                act.done += len(await self._operations.run_now([one.job.key for one in batch], operator, target))
        return self._report(operator, Action.RUN_NOW, target, act)

    # --- submitting again

    async def replay(self, request_id: str, changes: Changes, operator: str) -> str:
        """Submit a copy of an ended request; the id of the copy.

        Raises `NotKept`, `NotEnded`, `UnknownRequest`, `BadRequest`, and what a submission raises.
        """
        operator = checked_operator(operator)
        new = changes.apply(await self._again(request_id))
        request_id = request_id.lower()
        (copy,) = await self._copy([(request_id, new)], operator, request_id)
        if isinstance(copy, QueueError):
            raise copy
        self._emit(Operated(operator, Action.REPLAY, request_id, 1))
        return copy

    async def replay_selected(self, wanted: JobFilter, operator: str, expect: int | None) -> ActReport:
        """Submit copies of those of the selected requests that have ended. Raises `SelectionDiffers`, `BadRequest`."""
        operator, target = checked_operator(operator), _target_of(wanted)
        act = _Act(await self._selected(wanted, FINAL, expect))
        with act:
            async for batch in self._kept(act.selected, act.left_out):
                results = await self._copy(batch, operator, target)
                for (request_id, _), result in zip(batch, results, strict=True):
                    if isinstance(result, QueueError):
                        act.left_out[type(result).__name__] += 1
                    else:
                        act.copies[request_id] = result
                        act.done += 1
        return self._report(operator, Action.REPLAY, target, act)

    async def _kept(self, selected: Sequence[ListedJob], left_out: Counter[str]) -> AsyncIterator[list[tuple[str, NewJob]]]:
        """The stored requests of these jobs in batches, the oldest first, so that the copies keep the order."""
        batch: list[tuple[str, NewJob]] = []
        size = 0
        for one in reversed(selected):
            try:
                new = await self._again(one.job.request_id)
            except UnknownRequest as error:  # `NotKept` too
                left_out[type(error).__name__] += 1
                continue
            batch.append((one.job.request_id, new))
            size += len(new.request.body)
            if len(batch) == _COPIES or size >= _COPIED_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    async def _again(self, request_id: str) -> NewJob:
        """A stored request as a new submission. A task gets secret ids of its own."""
        new = (await self._operations.kept_request(request_id)).job
        if new.task is None:
            return new
        return new.replace(task=self._secret_ids.new_task(new.task.spec, listed=new.task.is_listed))

    async def _copy(self, batch: list[tuple[str, NewJob]], operator: str, target: str) -> list[str | QueueError]:
        results = await self._operations.copy(batch, operator, target)
        is_emitted = is_observed(self._emit, Submitted)
        for (_, new), result in zip(batch, results, strict=True):
            if isinstance(result, str):
                if self._count is not None:
                    self._count(new.route)
                if is_emitted:
                    self._emit(Submitted(result, new.route, new.request.raw_path.decode("latin-1")))
        return results

    # --- selections

    async def _selected(self, wanted: JobFilter, possible: frozenset[JobState], expect: int | None) -> list[ListedJob]:
        """The selected requests in these states, newest first. Raises `SelectionDiffers` if their number is not `expect`."""
        states = (wanted.states or possible) & possible
        selected: list[ListedJob] = []
        page = JobPage([], None)
        while states:
            page = await self._jobs.page(wanted.replace(states=states), page.next, _BATCH)
            selected += page.jobs
            if page.next is None:
                break
        if expect is not None and len(selected) != expect:
            raise SelectionDiffers(f"the selection has {len(selected)} requests, not {expect}; nothing was changed")
        return selected

    def _report(self, operator: str, action: Action, target: str, act: _Act) -> ActReport:
        if act.done:
            self._emit(Operated(operator, action, target, act.done))
        return act.report()


class _Act:
    """An act on selected requests. As a context it ends at an error of the database, which is raised if nothing was done.

    If something was done, a report has to name it: the operator would repeat the whole act, and submit the same copies twice.
    """

    def __init__(self, selected: Sequence[ListedJob]) -> None:
        self.selected = selected
        self.done = 0
        self.left_out: Counter[str] = Counter()
        self.copies: dict[str, str] = {}
        self._ended_by: QueueError | None = None

    def batches(self) -> Iterator[Sequence[ListedJob]]:
        """The selected requests, as many as are changed with one call of the store."""
        return (self.selected[start : start + _BATCH] for start in range(0, len(self.selected), _BATCH))

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if not self.done or not isinstance(error, QueueError):
            return False
        self._ended_by = error
        return True

    def report(self) -> ActReport:
        """What became of all selected requests."""
        left_out = self.left_out.copy()
        if rest := len(self.selected) - self.done - left_out.total():
            left_out["changed" if self._ended_by is None else type(self._ended_by).__name__] += rest
        return ActReport(len(self.selected), self.done, dict(left_out), self.copies, self._ended_by)


def _target_of(wanted: JobFilter) -> str:
    """What is recorded about a selection: the conditions that are set, as JSON."""
    conditions = {name: value for name, value in to_builtins(wanted).items() if value not in (None, False, [])}
    return encode({name: sorted(value) if isinstance(value, list) else value for name, value in conditions.items()}).decode()
