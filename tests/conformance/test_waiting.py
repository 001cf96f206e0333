"""Jobs that await an external service: callbacks, signals, polls and time-outs."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.models import AttemptEnd, CancelOutcome, Claim, ErrorType, Failure, Job, JobState, RetryPolicy
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.jobs.task_spec import Backoff, PollConfig
from queue_middleware.tasks.models import CompletionSource, PollCapacity, ResolveOutcome, SecretIdKind, TaskStatus
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import (
    claim_deliveries,
    claim_polls,
    make_job,
    make_response,
    make_result,
    make_task,
    make_wait,
)
from tests.support.leases import lease_passes

COMPLETED = AttemptEnd(JobState.COMPLETED, 200)
FAILED = Failure(ErrorType.PROVIDER_FAILED, "out of paint")
POLLS = PollConfig("https://provider.test/{startResult.body.id}", "status", ("done",), ("failed",))
KEYS = ((b"authorization", b"Key secret"),)


async def running(store: JobStore, **changes: object) -> Claim:
    receipt = await store.submit(make_job(**{"task": make_task(), "webhook": "https://example.com/", **changes}), start=True)
    assert receipt.claim
    return receipt.claim


async def waiting(store: JobStore, seconds: float = 30.0, **changes: object) -> Claim:
    claim = await running(store)
    assert await store.tasks.complete_attempt(claim, claim.task, make_response(b'{"id": 7}'), make_wait(seconds, **changes))
    return claim


async def job_of(store: JobStore, claim: Claim) -> Job:
    return await store.job(claim.request_id)


# --- beginning a wait


async def test_a_claim_contains_its_task(store: JobStore) -> None:
    task = make_task(backoff=Backoff.LINEAR, timeout=2.5, poll=POLLS, provider="fal")
    policy = RetryPolicy(4, backoff=Backoff.LINEAR)
    receipt = await store.submit(make_job(task=task, retry=policy), start=True)
    assert receipt.claim
    assert receipt.claim.task == task
    await store.release(receipt.claim)
    (claim,) = await store.claim(1)
    assert (claim.task, claim.retry) == (task, policy)


async def test_a_plain_submission_has_no_task(store: JobStore) -> None:
    await store.submit(make_job())
    (claim,) = await store.claim(1)
    assert claim.task is None
    with pytest.raises(UnknownRequest):
        await store.tasks.record(claim.request_id)


async def test_an_awaiting_job_has_no_result_and_no_webhook(store: JobStore) -> None:
    claim = await waiting(store)
    assert (await job_of(store, claim)).state is JobState.AWAITING
    assert await store.running_claims() == {}
    assert await store.claim(5) == []
    assert await claim_deliveries(store) == []


async def test_a_repeated_begin_of_a_wait_changes_nothing(store: JobStore) -> None:
    claim = await waiting(store)
    assert await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait(99.0)) == AttemptEnd(
        JobState.AWAITING
    )
    await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(b'"first"'))
    assert await store.tasks.complete_attempt(claim, claim.task, make_response(), None) == COMPLETED
    assert (await store.result(claim.request_id)).response == make_response(b'"first"')


async def test_a_lost_claim_does_not_complete_the_attempt(store: JobStore) -> None:
    claim = await running(store)
    await store.release(claim)
    assert not await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait())
    assert not await store.tasks.register_callback(claim, make_task())


async def test_without_a_wait_an_attempt_ends_like_others(store: JobStore) -> None:
    answered, failed = await running(store), await running(store, webhook="https://other.example/")
    end = await store.tasks.complete_attempt(answered, answered.task, make_response(status=422), None)
    assert end == AttemptEnd(JobState.COMPLETED, 422)
    broken = Failure(ErrorType.RUNNER_SERVER_ERROR, "broken")
    end = await store.tasks.complete_attempt(failed, failed.task, broken, None)
    assert end == AttemptEnd(JobState.FAILED, error=ErrorType.RUNNER_SERVER_ERROR)
    assert await store.tasks.complete_attempt(failed, failed.task, broken, None) == end
    assert (await store.result(answered.request_id)).response == make_response(status=422)
    assert (await job_of(store, failed)).state is JobState.FAILED
    assert len(await claim_deliveries(store)) == 2


async def test_a_handler_can_request_its_callback_url_while_it_runs(store: JobStore) -> None:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    task = make_task(listed=False)
    assert await store.tasks.register_callback(receipt.claim, task)
    found = await store.tasks.find(SecretIdKind.CALLBACK, task.callback_hash)
    assert (found.request_id, found.state, found.task) == (receipt.request_id, JobState.RUNNING, task)
    await store.release(receipt.claim)
    (claim,) = await store.claim(1)
    assert claim.task == task
    with pytest.raises(UnknownRequest):
        await store.tasks.record(receipt.request_id)


async def test_a_task_that_was_not_registered_yet_is_stored_with_the_attempt(store: JobStore) -> None:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    task = make_task(listed=False)
    assert await store.tasks.complete_attempt(receipt.claim, task, make_response(), make_wait())
    assert await store.tasks.register_callback(receipt.claim, task) is False
    assert (await store.tasks.find(SecretIdKind.CALLBACK, task.callback_hash)).state is JobState.AWAITING


# --- final results


async def test_the_first_result_ends_the_job_with_its_webhook(store: JobStore) -> None:
    claim = await waiting(store)
    word = make_result(b'{"status": "OK", "payload": {"images": []}}')
    assert await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, word) is ResolveOutcome.ENDED
    result = await store.result(claim.request_id)
    assert (result.job.state, result.job.status, result.response) == (JobState.COMPLETED, 200, word.response)
    assert [delivery.request_id for delivery in await claim_deliveries(store)] == [claim.request_id]


async def test_a_failure_fails_the_job_and_its_message_is_kept(store: JobStore) -> None:
    claim = await waiting(store)
    await store.tasks.resolve(claim.key, CompletionSource.POLL, make_result(b'{"status": "ERROR"}', FAILED))
    result = await store.result(claim.request_id)
    assert (result.job.state, result.job.failure, result.response) == (JobState.FAILED, FAILED, None)
    record = await store.tasks.record(claim.request_id)
    assert (record.status, record.resolved_by) == (TaskStatus.FAILED, CompletionSource.POLL)
    assert record.response == make_response(b'{"status": "ERROR"}')
    assert len(await claim_deliveries(store)) == 1


async def test_of_several_concurrent_results_one_counts(store: JobStore) -> None:
    claim = await waiting(store)
    words = [store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(b"%d" % number)) for number in range(100)]
    outcomes = await asyncio.gather(*words)
    assert Counter(outcomes) == {ResolveOutcome.ENDED: 1, ResolveOutcome.DUPLICATE: 99}
    response = (await store.result(claim.request_id)).response
    assert response == make_response(b"%d" % outcomes.index(ResolveOutcome.ENDED))
    assert len(await claim_deliveries(store)) == 1


async def test_a_result_from_another_source_is_too_late(store: JobStore) -> None:
    claim = await waiting(store)
    await store.tasks.resolve(claim.key, CompletionSource.SIGNAL, make_result(b'"first"'))
    assert await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result()) is ResolveOutcome.TOO_LATE
    assert (await store.result(claim.request_id)).response == make_response(b'"first"')


async def test_a_result_after_another_end_is_too_late(store: JobStore) -> None:
    cancelled, answered = await waiting(store), await running(store)
    await store.cancel(cancelled.request_id)
    await store.tasks.complete_attempt(answered, answered.task, make_response(status=400), None)
    for claim in (cancelled, answered):
        assert await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result()) is ResolveOutcome.TOO_LATE


async def test_a_result_for_a_deleted_job(store: JobStore) -> None:
    with pytest.raises(UnknownRequest):
        await store.tasks.resolve(4711, CompletionSource.CALLBACK, make_result())
    with pytest.raises(UnknownRequest):
        await store.tasks.find(SecretIdKind.CALLBACK, b"\0" * 32)
    with pytest.raises(UnknownRequest):
        await store.tasks.find(SecretIdKind.SIGNAL, b"\0" * 32)


@pytest.mark.parametrize("how", ["wait", "answer", "fail", "retry", "release", "lose", "cancel"])
async def test_a_result_during_the_attempt_counts_however_the_attempt_ends(
    store: JobStore, clock: ManualClock, how: str
) -> None:
    claim = await running(store, retry=RetryPolicy(1))
    word = make_result(b'"early"')
    assert await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, word) is ResolveOutcome.DEFERRED
    assert await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(b'"again"')) is ResolveOutcome.DUPLICATE
    assert await store.tasks.resolve(claim.key, CompletionSource.SIGNAL, make_result(b'"other"')) is ResolveOutcome.TOO_LATE
    assert (await job_of(store, claim)).state is JobState.RUNNING
    if how == "wait":
        assert await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait()) == COMPLETED
    elif how == "answer":
        assert await store.tasks.complete_attempt(claim, claim.task, make_response(status=500), None) == COMPLETED
    elif how == "fail":
        assert await store.tasks.complete_attempt(claim, claim.task, FAILED, None) == COMPLETED
    elif how == "retry":
        assert await store.retry(claim, 5.0) == COMPLETED
    elif how == "release":
        assert await store.release(claim) == COMPLETED
    elif how == "lose":
        await lease_passes(store, clock)
        assert [rescue.state for rescue in await store.rescue()] == [JobState.COMPLETED]
    else:
        await store.cancel(claim.request_id)
        assert await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait()) == COMPLETED
    assert (await store.result(claim.request_id)).response == word.response
    assert await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result()) is ResolveOutcome.DUPLICATE
    assert len(await claim_deliveries(store)) == 1


async def test_an_early_failure_fails_the_job(store: JobStore) -> None:
    claim = await running(store)
    await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(b'"no"', FAILED))
    end = await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait())
    assert end == AttemptEnd(JobState.FAILED, error=FAILED.error_type)
    record = await store.tasks.record(claim.request_id)
    assert (record.job.failure, record.response) == (FAILED, make_response(b'"no"'))


@pytest.mark.parametrize("delay", [None, 5.0])
async def test_a_result_ends_a_job_that_waits_for_another_attempt(store: JobStore, delay: float | None) -> None:
    """The response of the call was lost, but the call had reached the provider, so it is not called again."""
    claim = await running(store)
    await (store.release(claim) if delay is None else store.retry(claim, delay))
    assert await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result()) is ResolveOutcome.ENDED
    assert await store.claim(5) == []
    assert await store.next_due(Topic.WORK) is None
    assert (await store.counts()).jobs == {JobState.COMPLETED: 1}


@pytest.mark.parametrize("is_early", [False, True])
async def test_no_chunk_of_a_long_call_response_remains(store: JobStore, is_early: bool) -> None:
    claim = await running(store)
    await store.append(claim, 0, b"part")
    if is_early:
        await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(b'"done"'))
    await store.tasks.complete_attempt(claim, claim.task, make_response(b"end", chunks=1), make_wait())
    if not is_early:
        await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result(b'"done"'))
    assert (await store.result(claim.request_id)).response == make_response(b'"done"')
    with pytest.raises(UnknownRequest):
        await store.response_chunk(claim.key, 0)


async def test_intermediate_events_are_shown_until_the_end(store: JobStore) -> None:
    claim = await waiting(store)
    await store.tasks.record_status(claim.key, "starting")
    await store.tasks.record_status(claim.key, "processing")
    assert (await store.tasks.record(claim.request_id)).last_status == "processing"
    await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result())
    await store.tasks.record_status(claim.key, "late")
    assert (await store.tasks.record(claim.request_id)).last_status == "processing"


# --- time-outs


async def test_a_task_that_waits_too_long_times_out(store: JobStore, clock: ManualClock) -> None:
    claim, patient = await waiting(store, 30.0), await waiting(store, 31.0)
    clock.advance(29.9)
    assert await store.tasks.time_out() == []
    clock.advance(0.1)
    assert [rescue.request_id for rescue in await store.tasks.time_out()] == [claim.request_id]
    assert await store.tasks.time_out() == []
    job = await job_of(store, claim)
    assert job.failure
    assert (job.state, job.failure.error_type) == (JobState.FAILED, ErrorType.WAIT_TIMEOUT)
    assert (await store.tasks.record(claim.request_id)).status is TaskStatus.TIMEOUT
    assert await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result()) is ResolveOutcome.TOO_LATE
    assert (await job_of(store, patient)).state is JobState.AWAITING
    assert len(await claim_deliveries(store)) == 1


async def test_the_timeout_starts_with_the_wait(store: JobStore, clock: ManualClock) -> None:
    claim = await running(store)
    clock.advance(59)
    await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait(30.0))
    clock.advance(29)
    assert await store.tasks.time_out() == []


async def test_cancelling_ends_an_awaiting_job_at_once(store: JobStore, clock: ManualClock) -> None:
    claim = await waiting(store, poll_in=5.0, poll=POLLS, credentials=KEYS)
    assert await store.cancel(claim.request_id) is CancelOutcome.CANCELLED
    assert (await job_of(store, claim)).state is JobState.CANCELLED
    assert len(await claim_deliveries(store)) == 1
    clock.advance(60)
    assert await store.tasks.time_out() == []
    assert await claim_polls(store, 5) == []


async def test_an_attempt_to_be_cancelled_does_not_begin_a_wait(store: JobStore) -> None:
    claim = await running(store)
    await store.cancel(claim.request_id)
    assert await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait())
    assert (await job_of(store, claim)).state is JobState.CANCELLED


async def test_a_lost_process_does_not_affect_awaiting_jobs(store: JobStore, clock: ManualClock) -> None:
    claim = await waiting(store, 600.0)
    clock.advance(120)
    assert await store.rescue() == []
    assert (await job_of(store, claim)).state is JobState.AWAITING


async def test_awaiting_jobs_survive_their_process(stores: Stores) -> None:
    here = await stores.open()
    claim = await waiting(here)
    await here.close()
    there = await stores.open()
    found = await there.tasks.find(SecretIdKind.CALLBACK, claim.task.callback_hash)
    assert (found.key, found.state) == (claim.key, JobState.AWAITING)
    assert await there.tasks.resolve(found.key, CompletionSource.CALLBACK, make_result()) is ResolveOutcome.ENDED


async def test_a_hash_finds_the_job_until_retention_deletes_it(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(retention=100.0)
    claim = await running(store, webhook=None)
    await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait())
    await store.tasks.resolve(claim.key, CompletionSource.SIGNAL, make_result())
    found = await store.tasks.find(SecretIdKind.SIGNAL, claim.task.signal_hash)
    assert (found.state, found.resolved_by) == (JobState.COMPLETED, CompletionSource.SIGNAL)
    clock.advance(101)
    assert await store.prune(10) == 1
    with pytest.raises(UnknownRequest):
        await store.tasks.find(SecretIdKind.SIGNAL, claim.task.signal_hash)


# --- polls


async def test_a_poll_is_due_on_time_with_all_that_it_needs(store: JobStore, clock: ManualClock) -> None:
    claim = await waiting(store, 60.0, poll_in=5.0, poll=POLLS, credentials=KEYS)
    assert await store.next_due(Topic.POLL) == 5.0
    assert await claim_polls(store, 5) == []
    waits_until = clock.now + 60_000
    clock.advance(5)
    (poll,) = await claim_polls(store, 5)
    assert (poll.key, poll.request_id, poll.number) == (claim.key, claim.request_id, 1)
    assert (poll.config, poll.credentials, poll.task) == (POLLS, KEYS, claim.task)
    assert poll.start_response == make_response(b'{"id": 7}')
    assert (poll.deadline, poll.host) == (waits_until, "https://provider.test:443")
    assert await claim_polls(store, 5) == []
    assert poll.failures == 0
    assert await store.tasks.settle_poll(poll, next_in=3.0, status="IN_PROGRESS", failures=4)
    assert not await store.tasks.settle_poll(poll, next_in=3.0)
    assert await store.next_due(Topic.POLL) == 3.0
    assert (await store.tasks.record(claim.request_id)).last_status == "IN_PROGRESS"
    clock.advance(3)
    (poll,) = await claim_polls(store, 5)
    assert (poll.number, poll.failures) == (2, 4)


async def test_the_longest_due_poll_is_claimed_first(store: JobStore, clock: ManualClock) -> None:
    late, early = await waiting(store, poll_in=9.0, poll=POLLS), await waiting(store, poll_in=8.0, poll=POLLS)
    clock.advance(10)
    assert [poll.key for poll in await claim_polls(store, 1)] == [early.key]
    assert [poll.key for poll in await claim_polls(store, 5)] == [late.key]


def polls_of(host: str) -> PollConfig:
    return POLLS.replace(url_template=f"https://{host}/{{startResult.body.id}}")


async def test_a_host_at_its_limit_delays_no_other(store: JobStore, clock: ManualClock) -> None:
    slow = [(await waiting(store, 600.0, poll_in=5.0, poll=polls_of("slow.test"))).key for _ in range(4)]
    clock.advance(6)
    other = (await waiting(store, 600.0, poll_in=1.0, poll=polls_of("other.test"))).key
    clock.advance(2)
    claimed = await store.tasks.claim_polls(PollCapacity(4, unproven=4, per_host=2))
    assert [poll.key for poll in claimed.polls] == [*slow[:2], other]
    assert claimed.next_in is None, "those that were given out are not due again before they are settled, or lost"
    busy = {"https://slow.test:443": 1}
    claimed = await store.tasks.claim_polls(PollCapacity(3, unproven=3, per_host=2, busy=busy))
    assert [poll.key for poll in claimed.polls] == slow[2:3]


async def test_unproven_hosts_leave_capacity_for_prompt_hosts(store: JobStore, clock: ManualClock) -> None:
    strange = [(await waiting(store, 600.0, poll_in=5.0, poll=polls_of(f"strange{n}.test"))).key for n in range(3)]
    prompt = (await waiting(store, 600.0, poll_in=6.0, poll=polls_of("prompt.test"))).key
    later = await waiting(store, 600.0, poll_in=17.0, poll=polls_of("prompt.test"))
    clock.advance(7)
    places = PollCapacity(4, unproven=1, per_host=4, prompt=frozenset({"https://prompt.test:443"}))
    claimed = await store.tasks.claim_polls(places)
    assert [poll.key for poll in claimed.polls] == [strange[0], prompt]
    assert claimed.next_in == 10.0
    clock.advance(10)
    claimed = await store.tasks.claim_polls(places.replace(unproven=0))
    assert [poll.key for poll in claimed.polls] == [later.key]


async def test_a_lost_poll_is_repeated(store: JobStore, clock: ManualClock) -> None:
    await waiting(store, 600.0, poll_in=5.0, poll=POLLS)
    clock.advance(5)
    (lost,) = await claim_polls(store, 5)
    clock.advance(1)
    assert await claim_polls(store, 5) == []
    await lease_passes(store, clock)
    await store.rescue()
    (poll,) = await claim_polls(store, 5)
    assert poll.number == 2
    assert not await store.tasks.settle_poll(lost, next_in=3.0)


async def test_a_running_poll_is_renewed_and_not_repeated(store: JobStore, clock: ManualClock) -> None:
    """Also if the wall clock is set meanwhile."""
    await waiting(store, 90_000.0, poll_in=5.0, poll=POLLS)
    clock.advance(5)
    (poll,) = await claim_polls(store, 5)
    for _ in range(3):
        await lease_passes(store, clock, renewed=[poll.token])
        clock.set(3600)
        assert await store.rescue(running=[poll.token]) == []
        assert await claim_polls(store, 5) == []
    assert await store.tasks.settle_poll(poll, next_in=3.0)


async def test_a_poll_of_an_ended_job_is_not_recorded(store: JobStore, clock: ManualClock) -> None:
    claim = await waiting(store, poll_in=5.0, poll=POLLS)
    clock.advance(5)
    (poll,) = await claim_polls(store, 5)
    await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result())
    assert not await store.tasks.settle_poll(poll, next_in=3.0)
    assert await store.tasks.resolve(claim.key, CompletionSource.POLL, make_result()) is ResolveOutcome.TOO_LATE
    assert await store.next_due(Topic.POLL) is None


async def test_a_last_poll_gets_another_minute(store: JobStore, clock: ManualClock) -> None:
    claim = await waiting(store, 30.0, poll_in=30.0, poll=POLLS)
    clock.advance(31)
    assert await store.tasks.time_out() == []
    (poll,) = await claim_polls(store, 5)
    assert await store.tasks.time_out() == []
    await store.tasks.settle_poll(poll, next_in=None)
    assert [rescue.request_id for rescue in await store.tasks.time_out()] == [claim.request_id]
    given_up = await waiting(store, 30.0, poll_in=30.0, poll=POLLS)
    clock.advance(90)
    assert [rescue.request_id for rescue in await store.tasks.time_out()] == [given_up.request_id]


# --- tasks with a start time


async def test_a_task_with_a_start_time(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job(task=make_task(), due_at=clock.now + 10_000), start=True)
    assert receipt.claim is None
    assert (await store.job(receipt.request_id)).state is JobState.DELAYED
    assert (await store.tasks.record(receipt.request_id)).status is TaskStatus.DELAYED
    assert await store.next_due(Topic.WORK) == 10.0
    clock.advance(10)
    (claim,) = await store.claim(5)
    assert (claim.request_id, claim.attempt) == (receipt.request_id, 1)


async def test_a_start_time_in_the_past_means_now(store: JobStore, clock: ManualClock) -> None:
    await store.submit(make_job(task=make_task(), due_at=clock.now - 1))
    assert len(await store.claim(5)) == 1


# --- records and pages


async def test_the_statuses_of_a_task(store: JobStore, clock: ManualClock) -> None:
    async def status(claim: Claim) -> TaskStatus:
        return (await store.tasks.record(claim.request_id)).status

    plain = await running(store, task=make_task(callback=False))
    assert await status(plain) is TaskStatus.PROCESSING
    await store.retry(plain, 5.0)
    assert await status(plain) is TaskStatus.PENDING
    clock.advance(5)
    (plain,) = await store.claim(1)
    await store.tasks.complete_attempt(plain, plain.task, make_response(status=404), None)
    assert await status(plain) is TaskStatus.COMPLETED
    broken = await running(store, task=make_task(callback=False))
    await store.tasks.complete_attempt(broken, broken.task, make_response(status=502), None)
    assert await status(broken) is TaskStatus.FAILED
    refused = await running(store)
    await store.tasks.complete_attempt(refused, refused.task, make_response(status=422), None)
    assert await status(refused) is TaskStatus.FAILED
    polled = await running(store, task=make_task(callback=False, poll=POLLS))
    await store.tasks.complete_attempt(polled, polled.task, make_response(), make_wait(poll_in=5.0))
    assert await status(polled) is TaskStatus.POLLING
    both = await running(store, task=make_task(poll=POLLS))
    await store.tasks.complete_attempt(both, both.task, make_response(), make_wait(poll_in=5.0))
    assert await status(both) is TaskStatus.WAITING
    await store.cancel(both.request_id)
    assert await status(both) is TaskStatus.CANCELLED


async def test_a_record_has_the_response_only_after_the_end(store: JobStore) -> None:
    claim = await waiting(store)
    record = await store.tasks.record(claim.request_id)
    assert (record.response, record.webhook, record.spec) == (None, "https://example.com/", claim.task.spec)
    await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result())
    assert (await store.tasks.record(claim.request_id)).response == make_result().response


async def test_a_page_shows_the_tasks_of_its_client_newest_first(store: JobStore, clock: ManualClock) -> None:
    mine = [await running(store, client="id:me") for _ in range(3)]
    await running(store, client="id:other")
    await store.submit(make_job(client="id:me"))
    await store.submit(make_job(client="id:me", task=make_task(listed=False)))
    page = await store.tasks.page("id:me", None, limit=2, offset=0)
    assert [record.job.request_id for record in page.tasks] == [mine[2].request_id, mine[1].request_id]
    assert page.total == 3
    page = await store.tasks.page("id:me", None, limit=2, offset=2)
    assert [record.job.request_id for record in page.tasks] == [mine[0].request_id]
    await store.tasks.complete_attempt(mine[1], mine[1].task, make_response(), make_wait())
    page = await store.tasks.page("id:me", TaskStatus.WAITING, limit=2, offset=0)
    assert ([record.job.request_id for record in page.tasks], page.total) == ([mine[1].request_id], 1)
    assert (await store.tasks.page("id:nobody", None, limit=2, offset=0)).total == 0
