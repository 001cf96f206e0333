"""The `pollConfig` of a task: what is accepted, what is refused with which error, and that it survives being stored."""

import json

import msgspec
import pytest

from queue_middleware.errors import BadRequest
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.tasks.polling.config import parse_poll_config, render_poll_config, status_key, status_keys

GIVEN = {
    "urlTemplate": "{startResult.body.status_url}",
    "statusPath": "status",
    "doneValues": ["done", 2, True],
    "failValues": ["broken"],
}


def test_required_fields_suffice():
    assert parse_poll_config(GIVEN) == PollConfig("{startResult.body.status_url}", "status", ("done", 2, True), ("broken",))


def test_every_field_survives_being_stored():
    given = {
        **GIVEN,
        "runningValues": ["busy"],
        "interval": 7,
        "maxDuration": 90.5,
        "resultPath": "output.0",
        "resultUrlTemplate": "/r/{startResult.body.id}",
        "errorPath": "why",
        "progressPath": "percent",
        "headers": {"Accept": "application/json"},
        "forwardAuth": False,
    }
    config = parse_poll_config(given)
    assert config.interval == 7.0
    assert json.loads(json.dumps(render_poll_config(config))) == given
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=PollConfig) == config


def test_it_is_rendered_as_asyncqueue_renders_it():
    assert json.loads(json.dumps(render_poll_config(parse_poll_config(GIVEN)))) == {
        **GIVEN,
        "interval": 5.0,
        "maxDuration": 600.0,
        "resultPath": "",
        "errorPath": "error",
        "forwardAuth": True,
    }


@pytest.mark.parametrize("name", GIVEN)
def test_missing_fields_are_named(name):
    with pytest.raises(BadRequest, match=f"pollConfig: .*missing required field `{name}`"):
        parse_poll_config({key: value for key, value in GIVEN.items() if key != name})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"intervall": 5}, "unknown field `intervall`"),
        ({"interval": "5"}, "interval: Expected `float`, got `str`"),
        ({"interval": 0.05}, r"pollConfig.interval is 0\.05; it must be from 0\.1 to 3600 seconds"),
        ({"interval": 4000}, r"it must be from 0\.1 to 3600 seconds"),
        ({"maxDuration": 0}, r"pollConfig.maxDuration is 0; it must be from 0\.1 to 604800 seconds"),
        ({"maxDuration": 1e9}, r"from 0\.1 to 604800"),
        ({"urlTemplate": "/{id}"}, r"pollConfig.urlTemplate: \{id\} is not a known variable"),
        ({"resultUrlTemplate": "ftp://x/"}, "pollConfig.resultUrlTemplate must begin"),
        ({"statusPath": "a..b"}, r"pollConfig.statusPath is 'a\.\.b'"),
        ({"resultPath": "a b"}, "pollConfig.resultPath"),
        ({"errorPath": "."}, "pollConfig.errorPath"),
        ({"progressPath": "."}, "pollConfig.progressPath"),
        ({"doneValues": []}, "doneValues is empty"),
        ({"doneValues": "done"}, "doneValues: Expected `array`, got `str`"),
        ({"doneValues": [None]}, r"doneValues\[0\]"),
        ({"doneValues": ["x"] * 33}, "pollConfig.doneValues takes at most 32 values"),
        ({"failValues": ["x" * 129]}, "pollConfig.failValues takes at most 32 values of at most 128"),
        ({"failValues": ["DONE"]}, "'done' is both in doneValues and in failValues"),
        ({"headers": {"host": "x"}}, "'host' is not a valid header name, or"),
        ({"headers": {"a b": "x"}}, "'a b' is not a valid header"),
        ({"headers": {"a_b": "x"}}, "'a_b' is not a valid header"),
        ({"headers": {"accept": "a\r\nb: c"}}, "the value of accept must be"),
        ({"forwardAuth": "yes"}, "forwardAuth: Expected `bool`, got `str`"),
    ],
)
def test_invalid_values_are_refused(change, text):
    with pytest.raises(BadRequest, match=text):
        parse_poll_config({**GIVEN, **change})


@pytest.mark.parametrize("given", [None, "fal", 3, []])
def test_a_value_that_is_not_an_object_is_refused(given):
    with pytest.raises(BadRequest, match="pollConfig: Expected `object`"):
        parse_poll_config(given)


def test_statuses_are_compared_without_regard_to_case():
    assert status_keys(("Done", 2, True, 0.5)) == {"done", "2", "true", "0.5"}
    assert status_key("IN_PROGRESS") == "in_progress"
    assert status_key(None) is status_key([]) is status_key({}) is None
