from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.states import FINAL, JOB_TRANSITIONS
from queue_middleware.webhooks.models import DELIVERY_TRANSITIONS, DeliveryEvent, DeliveryState


def test_nothing_leaves_a_final_state() -> None:
    assert not [state for state, _ in JOB_TRANSITIONS if state in FINAL]
    ended = (DeliveryState.DELIVERED, DeliveryState.SUPERSEDED, DeliveryState.DEAD)
    assert {event for state, event in DELIVERY_TRANSITIONS if state in ended} == {DeliveryEvent.REDELIVER}, (
        "except by an explicit retry"
    )


def test_every_state_can_be_reached_and_left() -> None:
    assert set(JOB_TRANSITIONS.values()) == set(JobState)
    assert {state for state, _ in JOB_TRANSITIONS} == set(JobState) - FINAL
