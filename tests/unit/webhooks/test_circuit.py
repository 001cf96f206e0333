import pytest

from queue_middleware.webhooks.circuit import (
    FAILURE_THRESHOLD,
    HEALTH_TRANSITIONS,
    MIN_GIVE_UP_AFTER,
    AttemptOutcome,
    HealthRecord,
    attempt_outcome,
    give_up_after,
    next_health,
    pause_after,
)
from queue_middleware.webhooks.fairness import FLOW_LIMITS
from queue_middleware.webhooks.models import ReceiverHealth

NOW = 1_800_000_000_000


def test_the_table_has_every_health_and_every_outcome():
    assert set(HEALTH_TRANSITIONS) == {(standing, outcome) for standing in ReceiverHealth for outcome in AttemptOutcome}
    assert set(FLOW_LIMITS) == set(ReceiverHealth)


@pytest.mark.parametrize(
    ("status", "seconds", "outcome"),
    [
        (200, 0.1, AttemptOutcome.PROMPT),
        (204, 2.0, AttemptOutcome.PROMPT),
        (200, 2.1, AttemptOutcome.SLOW),
        (404, 0.1, AttemptOutcome.PROMPT),
        (410, 0.1, AttemptOutcome.PROMPT),
        (301, 9.0, AttemptOutcome.SLOW),
        (429, 0.1, AttemptOutcome.FAILED),
        (500, 0.1, AttemptOutcome.FAILED),
        (503, 0.1, AttemptOutcome.FAILED),
        (None, 0.1, AttemptOutcome.FAILED),
    ],
)
def test_the_outcome_of_a_response(status, seconds, outcome):
    assert attempt_outcome(status, seconds) is outcome


def test_failures_count_up_to_the_threshold():
    health = HealthRecord(ReceiverHealth.HEALTHY)
    for number in range(1, FAILURE_THRESHOLD):
        health = next_health(health, AttemptOutcome.FAILED, NOW + number, probe=False)
        assert health == HealthRecord(ReceiverHealth.FAILING, number, NOW + 1)
    health = next_health(health, AttemptOutcome.FAILED, NOW + 100, probe=False)
    assert (health.health, health.failures, health.failing_since) == (ReceiverHealth.OPEN, FAILURE_THRESHOLD, NOW + 1)
    assert NOW + 100 + 5000 <= health.open_until <= NOW + 100 + 10_000


@pytest.mark.parametrize(
    ("outcome", "standing"), [(AttemptOutcome.PROMPT, ReceiverHealth.HEALTHY), (AttemptOutcome.SLOW, ReceiverHealth.SLOW)]
)
@pytest.mark.parametrize(
    "before", [HealthRecord(), HealthRecord(ReceiverHealth.FAILING, 3, NOW), HealthRecord(ReceiverHealth.OPEN, 9, NOW, NOW + 1)]
)
def test_one_success_resets_the_failures(before, outcome, standing):
    assert next_health(before, outcome, NOW, probe=False) == HealthRecord(standing)


def test_while_the_circuit_is_open_only_the_probe_counts():
    before = HealthRecord(ReceiverHealth.OPEN, 7, NOW, NOW + 500)
    assert next_health(before, AttemptOutcome.FAILED, NOW, probe=False) == before
    after = next_health(before, AttemptOutcome.FAILED, NOW, probe=True)
    assert (after.health, after.failures, after.failing_since) == (ReceiverHealth.OPEN, 8, NOW)
    assert after.open_until > NOW + 500


def test_an_attempt_without_an_outcome_changes_nothing():
    for before in (
        HealthRecord(),
        HealthRecord(ReceiverHealth.FAILING, 3, NOW),
        HealthRecord(ReceiverHealth.OPEN, 7, NOW, NOW + 500),
    ):
        assert next_health(before, None, NOW, probe=False) == before
    assert next_health(HealthRecord(ReceiverHealth.OPEN, 7, NOW, NOW + 500), None, NOW, probe=True).open_until == NOW


@pytest.mark.parametrize(("failures", "longest"), [(5, 10), (6, 20), (9, 160), (10, 300), (1000, 300)])
def test_the_pause_grows_to_five_minutes(failures, longest):
    for _ in range(20):
        assert longest / 2 <= pause_after(failures) <= longest


def test_deliveries_are_dead_after_the_schedule_and_at_least_an_hour():
    assert give_up_after((5.0, 300.0, 36000.0)) == 1.2 * 36305
    assert give_up_after((5.0,)) == give_up_after(()) == MIN_GIVE_UP_AFTER == 3600


def test_a_host_may_be_down_for_weeks():
    down = HealthRecord(ReceiverHealth.OPEN, 5000, NOW - 10**9, NOW)
    still = next_health(down, AttemptOutcome.FAILED, NOW, probe=True)
    assert still.health is ReceiverHealth.OPEN
    assert NOW + 150_000 <= (still.open_until or 0) <= NOW + 300_000
