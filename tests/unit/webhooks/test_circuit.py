import pytest

from queue_middleware.webhooks.circuit import (
    LEAST_PATIENCE,
    STANDING,
    THRESHOLD,
    Health,
    Outcome,
    judge,
    outcome_of,
    patience,
    pause_after,
)
from queue_middleware.webhooks.fairness import AT_ONCE
from queue_middleware.webhooks.models import Standing

NOW = 1_800_000_000_000


def test_the_table_has_every_health_and_every_outcome():
    assert set(STANDING) == {(standing, outcome) for standing in Standing for outcome in Outcome}
    assert set(AT_ONCE) == set(Standing)


@pytest.mark.parametrize(
    ("status", "seconds", "outcome"),
    [
        (200, 0.1, Outcome.PROMPT),
        (204, 2.0, Outcome.PROMPT),
        (200, 2.1, Outcome.SLOW),
        (404, 0.1, Outcome.PROMPT),
        (410, 0.1, Outcome.PROMPT),
        (301, 9.0, Outcome.SLOW),
        (429, 0.1, Outcome.FAILED),
        (500, 0.1, Outcome.FAILED),
        (503, 0.1, Outcome.FAILED),
        (None, 0.1, Outcome.FAILED),
    ],
)
def test_the_outcome_of_a_response(status, seconds, outcome):
    assert outcome_of(status, seconds) is outcome


def test_failures_count_up_to_the_threshold():
    health = Health(Standing.GOOD)
    for number in range(1, THRESHOLD):
        health = judge(health, Outcome.FAILED, NOW + number, probe=False)
        assert health == Health(Standing.FAILING, number, NOW + 1)
    health = judge(health, Outcome.FAILED, NOW + 100, probe=False)
    assert (health.standing, health.failures, health.failing_since) == (Standing.OPEN, THRESHOLD, NOW + 1)
    assert NOW + 100 + 5000 <= health.held_until <= NOW + 100 + 10_000


@pytest.mark.parametrize(("outcome", "standing"), [(Outcome.PROMPT, Standing.GOOD), (Outcome.SLOW, Standing.SLOW)])
@pytest.mark.parametrize("before", [Health(), Health(Standing.FAILING, 3, NOW), Health(Standing.OPEN, 9, NOW, NOW + 1)])
def test_one_success_resets_the_failures(before, outcome, standing):
    assert judge(before, outcome, NOW, probe=False) == Health(standing)


def test_while_the_circuit_is_open_only_the_probe_counts():
    before = Health(Standing.OPEN, 7, NOW, NOW + 500)
    assert judge(before, Outcome.FAILED, NOW, probe=False) == before
    after = judge(before, Outcome.FAILED, NOW, probe=True)
    assert (after.standing, after.failures, after.failing_since) == (Standing.OPEN, 8, NOW)
    assert after.held_until > NOW + 500


def test_an_attempt_without_an_outcome_changes_nothing():
    for before in (Health(), Health(Standing.FAILING, 3, NOW), Health(Standing.OPEN, 7, NOW, NOW + 500)):
        assert judge(before, None, NOW, probe=False) == before
    assert judge(Health(Standing.OPEN, 7, NOW, NOW + 500), None, NOW, probe=True).held_until == NOW


@pytest.mark.parametrize(("failures", "longest"), [(5, 10), (6, 20), (9, 160), (10, 300), (1000, 300)])
def test_the_pause_grows_to_five_minutes(failures, longest):
    for _ in range(20):
        assert longest / 2 <= pause_after(failures) <= longest


def test_webhooks_are_given_up_after_the_schedule_and_an_hour_at_least():
    assert patience((5.0, 300.0, 36000.0)) == 1.2 * 36305
    assert patience((5.0,)) == patience(()) == LEAST_PATIENCE == 3600


def test_a_host_may_be_down_for_weeks():
    down = Health(Standing.OPEN, 5000, NOW - 10**9, NOW)
    still = judge(down, Outcome.FAILED, NOW, probe=True)
    assert still.standing is Standing.OPEN
    assert NOW + 150_000 <= (still.held_until or 0) <= NOW + 300_000
