from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.states import FINAL, JOB
from queue_middleware.webhooks.models import DELIVERY, DeliveryEvent, DeliveryState


def test_nothing_leaves_a_final_state() -> None:
    assert not [state for state, _ in JOB if state in FINAL]
    ended = (DeliveryState.DELIVERED, DeliveryState.SUPERSEDED, DeliveryState.DEAD)
    assert {event for state, event in DELIVERY if state in ended} == {DeliveryEvent.REDELIVER}, "but when somebody asks for it"


def test_every_state_can_be_reached_and_left() -> None:
    assert set(JOB.values()) == set(JobState)
    assert {state for state, _ in JOB} == set(JobState) - FINAL
