import pytest

from queue_middleware.errors import SettingsError
from queue_middleware.syntax.durations import parse_duration, parse_schedule


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20", 20.0), ("5s", 5.0), (" 30m ", 1800.0), ("2h", 7200.0), ("7d", 604800.0), ("250ms", 0.25), ("1.5 s", 1.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 minutes", "-1s", "1e3", "5s5m"])
def test_an_invalid_duration_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a duration"):
        parse_duration(text)


def test_the_default_schedule() -> None:
    assert parse_schedule("5s, 5m, 30m, 2h, 5h, 10h, 10h") == (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
    assert parse_schedule("") == ()
