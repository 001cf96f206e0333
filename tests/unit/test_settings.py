from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from queue_middleware.errors import SettingsError
from queue_middleware.runtime.stray_variables import stray_variables
from queue_middleware.settings import Options, Settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_secrets_are_not_in_its_representation() -> None:
    settings = Settings.load({"signing_key": "ab" * 32, "webhook_secret": SECRET}, {})
    assert "abab" not in repr(settings)
    assert "MfKQ" not in repr(settings)


def test_defaults_are_valid() -> None:
    assert Settings.load({}, {}) == Settings()


def test_keyword_wins_over_environment_wins_over_default() -> None:
    environ = {"QUEUE_CONCURRENCY": "4", "QUEUE_PREFIX": "/from/environment"}
    settings = Settings.load({"concurrency": 2}, environ)
    assert (settings.concurrency, settings.prefix, settings.max_attempts) == (2, "/from/environment", 3)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lease", "5s", 5.0),
        ("retention", "7d", 604800.0),
        ("request_timeout", 1, 1.0),
        ("max_request_body", "2 MiB", 2 * 2**20),
        ("max_response_body", 12, 12),
        ("max_request_body", "1GB", 10**9),
        ("max_request_body", "0" * 25 + "5", 5),
        ("min_free_disk", "00", 0),
        ("max_queued", "0" * 25 + "5", 5),
        ("outbound_allow", "127.0.0.1, *.example.com,", ("127.0.0.1", "*.example.com")),
        ("paths", ["/a", "/b/*"], ("/a", "/b/*")),
        ("paths", "*.png, ?x, [/]y", ("*.png", "?x", "[/]y")),
        ("database", Path("data/q.sqlite3"), "data/q.sqlite3"),
        ("database", "sqlite:///~/q.sqlite3", "sqlite:///~/q.sqlite3"),
        ("name", " my shop ", "my shop"),
        ("name", None, None),
        ("webhook_schedule", "1s, 2m", (1.0, 120.0)),
        ("webhook_schedule", [1, "2m"], (1.0, 120.0)),
        ("webhook_schedule", "", ()),
        ("prefix", "queue/", "/queue"),
        ("public_url", "https://api.example.com/", "https://api.example.com"),
        ("public_url", None, None),
        ("fal_hosts", "Queue.Example.com., localhost:8000, [::1]:80", ("queue.example.com", "localhost:8000", "[::1]:80")),
        ("queue_app", "acme/wan2.1", "acme/wan2.1"),
        ("queue_app", None, None),
        (
            "cors_origins",
            "https://App.example.com/, http://localhost:3000",
            ("https://app.example.com", "http://localhost:3000"),
        ),
        ("cors_origins", ["*"], ("*",)),
        ("webhook_secret", "", ()),
        ("webhook_secret", f"{SECRET}, {SECRET}", (SECRET, SECRET)),
        ("webhook_secret", [SECRET], (SECRET,)),
        ("signing_key", Path("/run/secrets/key"), "/run/secrets/key"),
        ("allow_network_filesystem", "yes", True),
        ("allow_network_filesystem", False, False),
    ],
)
def test_values_in_their_final_form(name: str, text: Any, value: Any) -> None:
    assert getattr(Settings.load({name: text}, {}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("concurrency", 0, "concurrency: 0 is below the minimum, 1"),
        ("concurrency", "many", "concurrency: 'many' is not a whole number"),
        ("concurrency", 1.5, "is not a whole number"),
        ("concurrency", True, "is not a whole number"),
        ("lease", "soon", "lease: 'soon' is not a duration"),
        ("max_request_body", "10 apples", "max_request_body: '10 apples' is not a size"),
        ("on_crash", "panic", "is not one of 'retry', 'fail'"),
        ("tracing", "both", "is not one of 'link', 'parent'"),
        ("prefix", "/", "is not a prefix"),
        ("prefix", "/a/../b", "is not a prefix"),
        ("prefix", "/a b", "is not a prefix"),
        ("public_url", "api.example.com", "is not a base URL"),
        ("allow_network_filesystem", "maybe", "neither true nor false"),
        ("outbound_allow", 5, "is not a list of words"),
        ("database", None, "None is not a non-empty string"),
        ("request_timeout", float("nan"), "nan is not a duration"),
        ("lease", float("inf"), "inf is not a duration"),
        ("webhook_schedule", [-5], "negative duration"),
        ("concurrency", "\u00b2", "is not a whole number"),
        ("fal_hosts", "https://queue.example.com", "fal_hosts: 'https://queue.example.com' is not a host name"),
        ("fal_hosts", ["queue.example.com/run"], "is not a host name"),
        ("fal_hosts", "*.example.com", "is not a host name"),
        ("queue_app", "pictures", "queue_app: 'pictures' is not an app"),
        ("queue_app", "workflows/acme/pictures", "is not an app"),
        ("queue_app", "acme/pictures/", "is not an app"),
        ("cors_origins", "app.example.com", "cors_origins: 'app.example.com' is not an origin"),
        ("cors_origins", "https://app.example.com/page", "is not an origin"),
        ("cors_origins", "https://*.example.com", "is not an origin"),
        ("cors_origins", "null", "is not an origin"),
        ("retention", "36526d", "retention: a duration cannot be longer than a hundred years"),
        ("lease", 1e300, "longer than a hundred years"),
        ("webhook_schedule", "5s, 9999999999h", "longer than a hundred years"),
        ("webhook_schedule", [1e12], "longer than a hundred years"),
        ("max_queued", 2**53 + 1, "max_queued: a number above 9007199254740992 is too large"),
        ("max_queued", "9" * 5000, "is too large"),
        ("max_request_body", "9" * 5000 + " GiB", "is too large"),
        ("max_response_body", 10**30, "is too large"),
        ("retention", 10**400, "longer than a hundred years"),
        ("webhook_schedule", [10**400], "longer than a hundred years"),
        ("prefix", None, "is not a prefix"),
        ("api_keys", "", "api_keys: contains no API key"),
        ("api_keys", " , ", "api_keys: contains no API key"),
        ("api_keys", [], "api_keys: contains no API key"),
        ("api_keys", None, "api_keys: None is not a list of words"),
        ("database", "", "database: '' is not a non-empty string"),
        ("database", "  ", "database: '  ' is not the path of a file; accepted requests have to survive the process"),
        ("database", ":memory:", "database: ':memory:' is not the path of a file; accepted requests have to survive"),
        ("database", "sqlite://", "database: 'sqlite://' is not the path of a file"),
        ("database", "sqlite:///:memory:", "is not the path of a file"),
        ("database", "file:q.sqlite3?mode=memory", "is not the path of a file"),
        ("database", "sqlite:///q.sqlite3?timeout=5", "has parameters"),
        ("database", "data/", "database: 'data/' is not the path of a file"),
        ("database", "a\nb", "is not the path of a file"),
        ("database", "mysql://there/name", "database: mysql://… is not supported"),
        ("name", "", "name: '' is not a name"),
        ("name", " ", "is not a name"),
        ("name", "a\nb", "is not a name"),
        ("name", "x" * 129, "is not a name"),
        ("name", 5, "is not a name"),
        ("paths", ["generate"], "paths: the pattern 'generate' matches no path, because .* write '/generate'"),
        ("paths", "/a, b", "the pattern 'b' matches no path"),
        ("paths", b"/a", "is not a list of words"),
        ("paths", {"/a": 1}, "is not a list of words"),
        ("outbound_allow", [None], "is not a list of words"),
        ("max_request_body", True, "True' is not a size|True is not a size"),
        ("lease", True, "is not a duration"),
    ],
)
def test_invalid_options_are_named_with_their_value(name: str, value: Any, error: str) -> None:
    with pytest.raises(SettingsError, match=error):
        Settings.load({name: value}, {})


def test_the_error_names_the_environment_variable() -> None:
    with pytest.raises(SettingsError, match="QUEUE_LEASE: 'soon'"):
        Settings.load({}, {"QUEUE_LEASE": "soon"})


def test_variables_of_options_have_the_prefix_queue_once() -> None:
    assert Settings.load({}, {"QUEUE_APP": "acme/pictures"}).queue_app == "acme/pictures"


def test_an_empty_variable_is_ignored() -> None:
    assert Settings.load({}, {"QUEUE_LEASE": ""}).lease == 60.0


@pytest.mark.parametrize(("wrong", "right"), [("concurency", "concurrency"), ("web_hook_timeout", "webhook_timeout")])
def test_a_misspelled_option_names_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown option '{wrong}'; did you mean '{right}'?"):
        Settings.load({wrong: 1}, {})


def test_an_unknown_option_without_a_similar_one() -> None:
    with pytest.raises(SettingsError, match=r"unknown option 'workers'$"):
        Settings.load({"workers": 1}, {})
    with pytest.raises(SettingsError, match=r"unknown option 'zzz'$"):
        Settings.load({"zzz": 1}, {})


def test_settings_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().concurrency = 3  # type: ignore[misc]


def test_the_keywords_that_editors_complete_are_the_options() -> None:
    assert set(get_type_hints(Options)) == {option.name for option in fields(Settings)}


@pytest.mark.parametrize(
    ("option", "value", "parsed"),
    [
        ("api_keys", "alice:0123456789, bob-0123456789", ("alice:0123456789", "bob-0123456789")),
        ("task_targets", "queue.fal.run, *.Replicate.com.", ("queue.fal.run", "*.replicate.com")),
        ("callback_secret", "0" * 64 + "," + "f" * 64, (b"\0" * 32, b"\xff" * 32)),
        (
            "callback_keys",
            "queue.fal.run=https://rest.fal.ai/.well-known/jwks.json, api.replicate.com=whsec_b25l",
            (("queue.fal.run", "https://rest.fal.ai/.well-known/jwks.json"), ("api.replicate.com", "whsec_b25l")),
        ),
        ("callback_timeout", "10m", 600.0),
    ],
)
def test_options_of_tasks(option: str, value: str, parsed: object) -> None:
    assert getattr(Settings.load({option: value}, {}), option) == parsed
    assert getattr(Settings.load({}, {f"QUEUE_{option.upper()}": value}), option) == parsed


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("api_keys", "short"),
        ("api_keys", "two words here"),
        ("task_targets", "https://queue.fal.run"),
        ("task_targets", "*.*"),
        ("callback_secret", "00ff"),
        ("callback_keys", "api.replicate.com"),
        ("callback_keys", "queue.fal.run=secret"),
        ("callback_timeout", "0"),
    ],
)
def test_options_of_tasks_that_are_refused(option: str, value: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.load({option: value}, {})
    if option not in ("task_targets", "callback_timeout"):
        assert value not in str(refusal.value), "the value may be close to the secret"


def test_secrets_are_not_shown() -> None:
    shown = repr(Settings.load({"api_keys": "alice:0123456789", "callback_secret": "0" * 64}, {}))
    assert "0123456789" not in shown
    assert "callback_secret" not in shown


@pytest.mark.parametrize("name", ["api_keys", "callback_secret", "callback_keys", "webhook_secret", "signing_key"])
@pytest.mark.parametrize(
    "value",
    [SECRET.encode(), [SECRET.encode()], {"key": SECRET}, (SECRET, 1), [[SECRET]]],
    ids=lambda value: type(value).__name__,
)
def test_a_secret_of_the_wrong_type_is_not_in_the_complaint(name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.load({name: value}, {})
    assert SECRET.removeprefix("whsec_") not in str(refusal.value)


def test_a_signing_key_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert Settings.load({"signing_key": "~/keys"}, {}).signing_key == "/home/me/keys"


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("QUEUE_CONCURENCY", "did you mean QUEUE_CONCURRENCY?"),
        ("QUEUE_QUEUE_APP", "did you mean QUEUE_APP?"),
        ("QUEUE_TIMEOUT", "did you mean QUEUE_"),
        ("QUEUE_DATABASE_PATH", "did you mean QUEUE_DATABASE?"),
        ("QUEUE_URL", None),
        ("QUEUE_CONNECTION", None),
        ("QUEUE_WORKERS", None),
    ],
)
def test_a_variable_that_is_not_an_option(variable: str, hint: str | None) -> None:
    ((message, is_near),) = stray_variables({variable: "secret", "QUEUE_DATABASE": "q", "QUEUE_TESTS": "", "HOME": "/"})
    assert message.startswith(f"the environment variable {variable} is not an option of the queue")
    assert is_near == (hint is not None)
    assert (hint or "another program's") in message
    assert "secret" not in message
