import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_middleware.errors import RotationRefused, SettingsError
from queue_middleware.webhooks.signing.keyring import (
    KEPT,
    LEAD_TIME,
    MIN_LEAD_TIME,
    RULES,
    Key,
    KeyRing,
    KeyStatus,
    format_time,
    jwks,
)
from queue_middleware.webhooks.signing.keys import KeyPair

A, B, C, D = (KeyPair(bytes([number]) * 32) for number in range(1, 5))
HOUR = 3600.0
NOW = 1_800_000_000.0


def at(ring: KeyRing, now: float) -> dict[str, str]:
    """The state of each key, as `{"A": "active", …}`."""
    names = {A.kid: "A", B.kid: "B", C.kid: "C", D.kid: "D"}
    return {names[key.pair.kid]: str(ring.status(key, now)) for key in ring.keys}


# --- the lifecycle of keys

LIFE = [
    # hours after the rotation, A, B
    (0, "active", "next"),
    (25 - 0.001, "active", "next"),
    (25, "old", "active"),
    (25 + 48 - 0.001, "old", "active"),
    (25 + 48, "retired", "active"),
    (10_000, "retired", "active"),
]


@pytest.mark.parametrize(("hours", "first", "second"), LIFE)
def test_a_rotation_over_time(hours, first, second):
    ring = KeyRing.of(A).rotated(B, NOW)
    assert at(ring, NOW + hours * HOUR) == {"A": first, "B": second}


def test_the_documented_times():
    assert MIN_LEAD_TIME >= 24 * HOUR
    assert LEAD_TIME > MIN_LEAD_TIME
    assert KEPT >= 48 * HOUR


def test_signing_keys_are_published_and_only_retired_keys_are_not():
    assert all(rights.published for rights in RULES.values() if rights.signs)
    assert [standing for standing, rights in RULES.items() if not rights.published] == [KeyStatus.RETIRED]
    assert set(RULES) == set(KeyStatus)


def test_keys_without_a_time_behave_as_before_rotation():
    ring = KeyRing.of(A, B, C)
    for now in (0.0, NOW, 1e11):
        assert at(ring, now) == {"A": "active", "B": "spare", "C": "spare"}
        assert (ring.active(now), ring.published(now), ring.signing(now)) == (A, (A, B, C), (A,))


def test_the_order_of_the_text_does_not_matter_for_keys_with_a_time():
    ring = KeyRing([Key(C, NOW + 2 * HOUR), Key(A), Key(B, NOW + HOUR)])
    assert at(ring, NOW) == {"A": "active", "B": "next", "C": "next"}
    assert at(ring, NOW + HOUR) == {"A": "old", "B": "active", "C": "next"}
    assert at(ring, NOW + 2 * HOUR) == {"A": "old", "B": "old", "C": "active"}
    assert at(ring, NOW + 49 * HOUR) == {"A": "retired", "B": "old", "C": "active"}


def test_there_always_is_an_active_key():
    ring = KeyRing([Key(B, NOW + HOUR), Key(C, NOW + 2 * HOUR)])
    assert at(ring, 0.0) == {"B": "active", "C": "next"}  # a machine whose clock starts at 1970


def test_until_when_a_key_is_published():
    ring = KeyRing([Key(A), Key(D), Key(B, NOW)])
    until = {key.pair: ring.published_until(key) for key in ring.keys}
    assert until == {A: NOW + KEPT, B: None, D: NOW + KEPT}


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=6, unique=True),
    st.integers(0, 2),
    st.integers(-10, 500),
)
def test_at_any_time(begins, timeless, hour):
    pairs = iter(KeyPair(bytes([number]) * 32) for number in range(1, 20))
    ring = KeyRing([*(Key(next(pairs)) for _ in range(timeless)), *(Key(next(pairs), NOW + at * HOUR) for at in begins)])
    now = NOW + hour * HOUR
    standings = [ring.status(key, now) for key in ring.keys]
    assert standings.count(KeyStatus.ACTIVE) == 1
    assert ring.active(now) == ring.signing(now)[-1]
    assert set(ring.signing(now)) <= set(ring.published(now))
    # Nothing depends on anything but the text.
    again = KeyRing.parse(ring.dump())
    assert [again.status(key, now) for key in again.keys] == standings


# --- rotating


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(24, 100)), min_size=1, max_size=8))
def test_a_key_is_known_a_day_before_it_signs_and_two_days_after(rotations):
    """For any times between rotations and any lead times, a receiver with a cached key set of a day knows the signing key."""
    ring, now, seen = KeyRing.of(KeyPair.generate()), NOW, {}
    for pause, notice in rotations:
        now += pause * HOUR
        try:
            ring = ring.rotated(KeyPair.generate(), now, notice * HOUR)
        except RotationRefused:
            continue
        seen[ring.keys[-1].pair.kid] = now
        moments = sorted({now, *(now + hours * HOUR for hours in (notice - 0.01, notice + 0.01, notice + 47.9))})
        for moment in moments:
            signing = ring.active(moment).kid
            if signing in seen:
                assert moment - seen[signing] >= MIN_LEAD_TIME
            before = ring.active(moment - KEPT + 1)
            assert before in ring.published(moment)


def test_a_rotation_deletes_retired_keys():
    ring = KeyRing.of(A, D).rotated(B, NOW)
    later = NOW + (25 + 48) * HOUR
    assert at(ring, later - 1) == {"A": "old", "B": "active", "D": "spare"}
    assert at(ring, later) == {"A": "retired", "B": "active", "D": "retired"}
    ring = ring.rotated(C, later)
    assert at(ring, later) == {"B": "active", "C": "next"}
    assert A.seed_hex() not in ring.dump()


def test_old_keys_are_kept():
    ring = KeyRing.of(A).rotated(B, NOW)
    ring = ring.rotated(C, NOW + 26 * HOUR)
    assert at(ring, NOW + 26 * HOUR) == {"A": "old", "B": "active", "C": "next"}


def test_one_rotation_after_the_other():
    ring = KeyRing.of(A).rotated(B, NOW)
    with pytest.raises(RotationRefused, match=f"key {B.kid} signs from {format_time(NOW + LEAD_TIME)}"):
        ring.rotated(C, NOW + 24 * HOUR)


@pytest.mark.parametrize("notice", [0.0, 24 * HOUR - 1, -1.0, float("nan"), float("inf"), 400 * 24 * HOUR])
def test_a_lead_time_that_is_too_short_or_too_long_is_refused(notice):
    with pytest.raises(RotationRefused, match="24 h"):
        KeyRing.of(A).rotated(B, NOW, notice)


# --- as text


def test_the_text():
    ring = KeyRing.of(A, D).rotated(B, NOW)
    assert ring.dump() == f"{A.seed_hex()}\n{B.seed_hex()}@2027-01-16T09:00:00Z\n{D.seed_hex()}\n"
    assert KeyRing.parse(ring.dump()).dump() == ring.dump()


@pytest.mark.parametrize("separator", [",", "\n", ", ", " ", "\r\n"])
def test_separators(separator):
    ring = KeyRing.parse(separator.join((A.seed_hex(), B.seed_hex(), f"{C.seed_hex()}@2027-01-15T08:00:00+00:00")))
    assert at(ring, NOW) == {"A": "old", "B": "spare", "C": "active"}
    assert at(ring, NOW - 1) == {"A": "active", "B": "spare", "C": "next"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no signing key"),
        (" ,\n", "no signing key"),
        ("abc", "64 hex digits"),
        (f"{A.seed_hex()} nonsense", "64 hex digits"),
        (f"{A.seed_hex()}@", "2026-01-31T00:00:00Z"),
        (f"{A.seed_hex()}@tomorrow", "2026-01-31T00:00:00Z"),
        (f"{A.seed_hex()}@2027-01-15T08:00:00", "2026-01-31T00:00:00Z"),  # which time zone?
        (f"{A.seed_hex()}@2027-01-15", "2026-01-31T00:00:00Z"),
        (f"{A.seed_hex()}@{B.seed_hex()}", "2026-01-31T00:00:00Z"),
        (f"{A.seed_hex()} @2027-01-15T08:00:00Z", "64 hex digits"),
        (f"{A.seed_hex()},{A.seed_hex().upper()}", "there twice"),
        (f"{A.seed_hex()} {A.seed_hex()}@2027-01-15T08:00:00Z", "there twice"),
    ],
)
def test_a_malformed_text_is_refused_and_not_repeated(text, reason):
    with pytest.raises(SettingsError, match=reason) as caught:
        KeyRing.parse(text)
    for secret in ("nonsense", "tomorrow", A.seed_hex()[:10], B.seed_hex()[:10]):
        assert secret not in caught.value.detail


def test_the_repr_does_not_show_private_keys():
    ring = KeyRing.of(A)
    assert A.seed_hex() not in f"{ring!r} {ring.keys!r}"


# --- the published key set


def test_key_set_has_each_key_without_and_with_padding():
    entries = jwks((A, B))["keys"]
    assert [entry["kid"] for entry in entries] == [A.kid, A.kid, B.kid, B.kid]
    assert [len(entry["x"]) for entry in entries] == [43, 44, 43, 44]
    assert base64.urlsafe_b64decode(entries[1]["x"]) == A.public
    assert all("d" not in entry for entry in entries)


def test_seeds_are_not_in_representations():
    ring = KeyRing([Key(A), Key(B, NOW + HOUR), Key(D)])
    for shown in (ring, *ring.keys, *(key.pair for key in ring.keys), [ring, ring.keys]):
        for text in (str(shown), repr(shown), f"{shown}", f"{shown!s:.9999}"):
            assert not any(pair.seed_hex() in text for pair in (A, B, D))
    assert str(ring) == repr(ring) == f"<KeyRing {A.kid} {B.kid} {D.kid}>"
    assert str(ring.keys[1]) == f"<Key {B.kid}>"
