"""Who of several providers is asked: shares of the places, and what is remembered of whom."""

import pytest

from queue_middleware.circuit import PROMPT
from queue_middleware.tasks import Places
from queue_middleware.turns import Choice, Turns


def test_there_are_places_until_all_are_taken():
    turns = Turns(2)
    turns.begin(1, "a")
    places = turns.places()
    assert places is not None
    assert (places.limit, dict(places.busy)) == (1, {"a": 1})
    turns.begin(2, "b")
    assert turns.places() is None
    turns.end(1)
    turns.end(1)
    places = turns.places()
    assert places is not None
    assert (places.limit, dict(places.busy)) == (1, {"b": 1})


@pytest.mark.parametrize(("limit", "each", "strangers"), [(1, 1, 1), (2, 1, 2), (3, 2, 3), (4, 2, 3), (8, 4, 6)])
def test_half_for_one_and_three_quarters_for_strangers(limit, each, strangers):
    places = Turns(limit).places()
    assert places is not None
    assert (places.each, places.strangers) == (each, strangers)


def test_who_answers_promptly_is_no_stranger_until_he_is_slow():
    turns = Turns(8)
    turns.begin(1, "a")
    turns.judge("a", PROMPT)
    turns.begin(2, "a")
    turns.judge("b", PROMPT + 0.1)
    turns.begin(3, "b")
    places = turns.places()
    assert places is not None
    assert places.prompt == {"a"}
    assert places.strangers == 6 - 2, "what he was when his turn began counts until it ends"
    turns.judge("a", PROMPT + 0.1)
    places = turns.places()
    assert places is not None
    assert places.prompt == set()


def test_not_everybody_is_remembered_for_ever():
    turns = Turns(8)
    for number in range(5000):
        turns.judge(f"host{number}", 0.1)
    places = turns.places()
    assert places is not None
    assert len(places.prompt) <= 1000
    assert "host4999" in places.prompt


def test_places_are_given_in_the_order_in_which_they_are_asked_for():
    choice = Choice(Places(4, strangers=2, each=2, busy={"c": 1}, prompt=frozenset({"c", "d"})))
    assert [choice.take(host) for host in "aabcccddd"] == [True, True, False, True, False, False, True, False, False]
    assert choice.left == 0
