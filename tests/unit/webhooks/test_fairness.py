from queue_middleware.webhooks.fairness import (
    AHEAD,
    FLOW_LIMITS,
    HOST_LIMITS,
    DispatchSlots,
    DueFlow,
    allocate,
    host_of_flow,
    submitter_of_flow,
)
from queue_middleware.webhooks.models import Capacity, DeliveryClaim, ReceiverHealth


def test_every_health_has_a_limit():
    assert set(FLOW_LIMITS) == set(ReceiverHealth)


def good(host, due=1):
    return DueFlow(host, ReceiverHealth.HEALTHY, due, host)


def new(host, due=1):
    return DueFlow(host, ReceiverHealth.NEW, due, host)


def test_each_flow_has_the_limit_of_its_health():
    waiting = [
        good("g", 40),
        new("n", 5),
        DueFlow("s", ReceiverHealth.SLOW, 9, "s"),
        DueFlow("f", ReceiverHealth.FAILING, 9, "f"),
        DueFlow("o", ReceiverHealth.OPEN, 9, "o"),
    ]
    shares = allocate(Capacity(100, 100), waiting)
    assert shares.by_flow == {"g": 16, "n": 1, "s": 4, "f": 1, "o": 1}
    assert (shares.full, shares.limited_hosts) == (False, {"g", "n", "s", "f"})


def test_running_attempts_count():
    shares = allocate(Capacity(100, 100, {"g": 15, "n": 1}), [good("g", 3), new("n")])
    assert shares.by_flow == {"g": 1}
    assert shares.limited_hosts == {"g", "n"}


def test_no_flow_receives_more_than_is_due():
    assert allocate(Capacity(100, 100), [good("g", 3)]).by_flow == {"g": 3}
    assert allocate(Capacity(100, 100), [good("g", 0)]).by_flow == {}


def test_flows_are_served_in_order_until_the_capacity_is_used_up():
    shares = allocate(Capacity(5, 5), [good("a", 4), good("b", 4), good("c", 4)])
    assert shares.by_flow == {"a": 4, "b": 1}
    assert shares.full


def test_unproven_flows_have_their_share_and_no_more():
    shares = allocate(Capacity(5, 2), [new("a"), new("b"), new("c"), good("g", 4)])
    assert shares.by_flow == {"a": 1, "b": 1, "g": 3}
    assert shares.full


def test_more_attempts_may_be_running_than_are_allowed_now():
    """A healthy flow had sixteen attempts running, and then failed."""
    assert allocate(Capacity(5, 5, {"f": 16}), [DueFlow("f", ReceiverHealth.FAILING, 9, "f")]).by_flow == {}


def delivery(token: int, flow: str, health: ReceiverHealth = ReceiverHealth.HEALTHY) -> DeliveryClaim:
    return DeliveryClaim(token, token, "https://a.example/", host_of_flow(flow), 1, token, "id", health=health, flow=flow)


def test_the_name_of_a_flow_has_host_and_submitter():
    assert (host_of_flow("a.example:8443 id:me"), submitter_of_flow("a.example:8443 id:me")) == ("a.example:8443", "id:me")


def test_slots_are_taken_and_freed_once():
    slots, first, second = DispatchSlots(4), delivery(1, "a.example me"), delivery(2, "b.example me", ReceiverHealth.NEW)
    slots.take(first)
    slots.take(second)
    assert slots.free() == Capacity(2, 2, {"a.example me": 1, "b.example me": 1})
    assert slots.give_back(second)
    assert not slots.give_back(second)
    assert slots.free() == Capacity(3, 3, {"a.example me": 1})


def test_unproven_receivers_leave_slots_to_healthy_ones():
    slots = DispatchSlots(4)
    for token in range(3):
        slots.take(delivery(token, f"host{token} me", ReceiverHealth.NEW))
    free = slots.free()
    assert free is not None
    assert (free.limit, free.unproven) == (1, 0)


def test_there_is_no_capacity_when_all_slots_are_taken():
    slots = DispatchSlots(1)
    slots.take(delivery(1, "a.example me"))
    assert slots.free() is None


def test_more_than_the_limit_is_claimed_of_a_quick_flow_while_it_and_its_host_are_healthy():
    quick = Capacity(200, 200, {"g": 16, "n": 1, "h": 16}, frozenset({"g", "n", "h"}))
    failing_host = DueFlow("h", ReceiverHealth.HEALTHY, 200, "h", ReceiverHealth.FAILING)
    shares = allocate(quick, [good("g", 200), new("n", 5), failing_host])
    assert (shares.by_flow, shares.limited_hosts) == ({"g": AHEAD}, {"g", "n", "h"})


def test_a_host_is_claimed_ahead_only_as_far_as_one_flow():
    flows = [DueFlow(f"g {number}", ReceiverHealth.HEALTHY, 40, "g") for number in range(5)]
    quick = frozenset(flow.flow for flow in flows)
    shares = allocate(Capacity(500, 500, {"g 0": 16}, quick), flows).by_flow
    assert shares == {"g 0": 40, "g 1": 40}
    assert sum(shares.values()) + 16 == HOST_LIMITS[ReceiverHealth.HEALTHY] + AHEAD


def test_what_is_claimed_ahead_takes_no_slots_from_another_flow_of_the_host():
    flow = DueFlow("g 1", ReceiverHealth.HEALTHY, 40, "g")
    assert allocate(Capacity(500, 500, {"g 0": 16 + AHEAD}), [flow]).by_flow == {"g 1": 16}


def test_what_one_claim_takes_ahead_leaves_half_of_the_slots_to_others():
    flows = [good(f"g{number}", 200) for number in range(4)]
    shares = allocate(Capacity(246, 246, {"b": 10}, frozenset(["g0", "g1", "g2", "g3"])), [*flows, good("h"), new("n")])
    assert shares.by_flow == {"g0": 16 + AHEAD, "g1": 128 - 10 - 16 - AHEAD, "g2": 16, "g3": 16, "h": 1, "n": 1}
    assert (shares.full, shares.limited_hosts) == (False, {"g0", "g1", "g2", "g3"})


def test_nothing_is_claimed_ahead_when_half_of_the_slots_are_taken():
    slots, flow = DispatchSlots(40), "a.example me"
    slots.take(delivery(0, flow))
    slots.begin(delivery(0, flow))
    slots.give_back(delivery(0, flow), quick=True)
    taken = 0
    while slots.has_room(flow, "a.example"):
        taken += 1
        slots.take(delivery(taken, flow))
    free = slots.free()
    assert free is not None
    assert (taken, free.limit, free.quick) == (20, 20, frozenset())


def test_attempts_begin_only_within_the_limits_of_flow_and_host():
    slots = DispatchSlots(100)
    flow_limit, host_limit = FLOW_LIMITS[ReceiverHealth.HEALTHY], HOST_LIMITS[ReceiverHealth.HEALTHY]
    claimed = [delivery(token, f"a.example {token // (flow_limit + 1)}") for token in range(host_limit + 8)]
    for one in claimed:
        slots.take(one)
    started = [one for one in claimed if slots.begin(one)]
    assert len(started) == host_limit
    assert not slots.begin(claimed[flow_limit])
    assert slots.give_back(started[0])
    assert slots.begin(claimed[flow_limit])


def test_a_flow_is_quick_until_a_response_is_not():
    slots, flow = DispatchSlots(100), "a.example me"
    claimed = [delivery(token, flow) for token in range(20)]
    for one in claimed[:16]:
        assert slots.has_room(flow, "a.example")
        slots.take(one)
        slots.begin(one)
    assert not slots.has_room(flow, "a.example")
    slots.give_back(claimed[0], quick=True)
    slots.take(claimed[16])
    assert slots.has_room(flow, "a.example")
    slots.give_back(claimed[1])
    slots.take(claimed[17])
    assert not slots.has_room(flow, "a.example")
    free = slots.free()
    assert free is not None
    assert free.quick == frozenset()


def test_a_slot_that_was_never_used_shows_nothing_about_its_flow():
    """The transaction has refused the webhook for which the slot was reserved."""
    slots, flow = DispatchSlots(100), "a.example me"
    sent, refused = delivery(1, flow), delivery(2, flow)
    slots.take(sent)
    slots.take(refused)
    slots.begin(sent)
    slots.give_back(sent, quick=True)
    slots.give_back(refused)
    free = slots.free()
    assert free is not None
    assert free.quick == {flow}


def test_only_so_many_quick_flows_are_remembered_as_there_are_slots():
    slots = DispatchSlots(2)
    for token in range(5):
        slots.take(delivery(token, f"host{token} me"))
        slots.begin(delivery(token, f"host{token} me"))
        slots.give_back(delivery(token, f"host{token} me"), quick=True)
    free = slots.free()
    assert free is not None
    assert 1 <= len(free.quick) <= 2
