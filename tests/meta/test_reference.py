"""The tables of the reference are complete and true: options, errors, providers, the command, receivers, operator methods."""

from __future__ import annotations

import inspect
import json
import re
import time
from dataclasses import fields
from typing import Any

import msgspec
import pytest

from queue_middleware import QueueMiddleware, Settings, cli, errors
from queue_middleware.cli import failures
from queue_middleware.cli import reference as command_reference
from queue_middleware.cli.exit_codes import Exit
from queue_middleware.cli.flags import COMMON
from queue_middleware.cli.schemas import schemas
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.observability.otel import names
from queue_middleware.receivers import fastapi, flask
from queue_middleware.settings import option_variable
from queue_middleware.tasks.polling.config import render_poll_config
from queue_middleware.tasks.polling.providers import PROVIDERS
from queue_middleware.verify import VerifiedWebhook, WebhookVerifier
from queue_middleware.webhooks.signing.keyring import RULES
from tests.support.spans import documented_names

from .test_docs import ROOT

# --- options


def documented_options() -> dict[str, tuple[str, str]]:
    text = (ROOT / "docs/reference/options.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+?) \| .+ \|$", text, re.MULTILINE)
    return {option: (variable, default.strip("`")) for option, variable, default in rows}


def test_every_option_is_documented_and_every_documented_option_exists() -> None:
    assert list(documented_options()) == [option.name for option in fields(Settings)]


@pytest.mark.parametrize(
    ("option", "documented"), list(documented_options().items()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_documented_variable_and_default_are_the_real_ones(option: str, documented: tuple[str, str]) -> None:
    variable, default = documented
    expected = getattr(Settings(), option)
    assert variable == option_variable(option)
    if default in ("none", "all"):
        assert expected in (None, (), default)
    else:
        # The environment's own parser reads the page: what is written there could be set there.
        assert getattr(Settings.load({}, {variable: default}), option) == expected


# --- spans

SPANS = (ROOT / "docs/reference/spans.md").read_text()


def test_every_span_attribute_and_metric_is_documented() -> None:
    attributes = re.findall(r"^\| `([a-z_]+\.[a-z_.]+)` \|", SPANS, re.MULTILINE)
    assert len(attributes) == len(set(attributes))
    in_text = {names.FRACTION, names.PROGRESS, names.HANDED_BACK, names.SYSTEM, names.SCOPE, names.SEND, names.SETTLE}
    in_text |= {names.DATABASE, *names.LABELS.values()}
    spans = {names.SUBMIT, names.PROCESS, names.CALL, names.CALLBACK, names.ACTION}
    assert re.findall(r"^\| `([^`]*\{\w+\})` \| [A-Z]+ \|", SPANS, re.MULTILINE) == sorted(spans, key=SPANS.index)
    assert documented_names() == {*attributes, *spans, *in_text, names.PROCESSING, names.SCHEMA_URL}
    assert all(f"`{text}`" in SPANS for text in in_text)
    assert f"version {names.SCHEMA_URL.rpartition('/')[2]}" in SPANS


def test_every_gauge_is_documented_with_its_unit_and_attributes() -> None:
    table = SPANS.partition("### Gauges")[2]
    rows = set()
    for metric, (name, unit) in names.GAUGES.items():
        attributes = ", ".join(f"`{names.LABELS[label]}`" for label in sorted(metric.labels))
        rows.add(f"| `{name}` | `{unit}` | `{metric.name}` | {attributes or '-'} |")
    assert rows == set(re.findall(r"^\| `.*$", table, re.MULTILINE))


def test_every_action_with_a_span_is_documented() -> None:
    row = next(line for line in SPANS.splitlines() if line.startswith(f"| `{names.ACTION}`"))
    assert {*re.findall(r"`(\w+)`", row), "cancel", "import"} == {str(action) for action in Action}


# --- errors


def test_every_error_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+|-) \|", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE)
    real = {
        kind.__name__: str(kind.status)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.QueueError) and not kind.__name__.startswith("_")
    }
    documented = dict(rows)
    assert documented.keys() == real.keys()
    returned = {kind: status for kind, status in documented.items() if status != "-"}
    assert returned == {kind: real[kind] for kind in returned}


# --- providers


def test_the_table_of_providers_is_the_real_one() -> None:
    text = (ROOT / "docs/reference/providers.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (\d+) s \| (\d+) s \| `(\S+)` \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == list(PROVIDERS)
    for provider, interval, limit, url, result, ends in rows:
        config = PROVIDERS[provider].poll
        assert (float(interval), float(limit), url) == (config.interval, config.max_duration, config.url_template)
        assert result.strip("`") == (config.result_url_template or config.result_path or "the whole response")
        done, failed = (tuple(re.findall(r"`([^`]+)`", part)) for part in ends.split(";"))
        assert done == tuple(map(str, config.done_values))
        assert failed == config.fail_values


def test_every_field_of_a_poll_config_is_documented_with_its_default() -> None:
    text = (ROOT / "docs/reference/providers.md").read_text().split("## `pollConfig`")[1].split("## ")[0]
    rows = {field: default for names, default in re.findall(r"^\| (`.+?`) \| (.+?) \|", text, re.MULTILINE)
            for field in re.findall(r"`(\w+)`", names)}  # fmt: skip
    shown = render_poll_config(PollConfig("", "", (), ()))
    assert {field for field, default in rows.items() if default == "required"} == {
        "urlTemplate", "statusPath", "doneValues", "failValues",
    }  # fmt: skip
    assert rows.keys() == {info.encode_name for info in msgspec.structs.fields(PollConfig)}
    for field, default in rows.items():
        if default not in ("required", "none"):
            assert str(shown[field]).lower() in (default.strip('`"'), f"{default}.0")


# --- the command and the receivers


def test_the_page_of_the_command_is_that_of_its_parser() -> None:
    """After a change, run `python -m queue_middleware.cli.reference docs/reference`."""
    _, mark, generated = (ROOT / "docs/reference/command.md").read_text().partition(command_reference.BEGIN)
    assert mark
    assert generated.strip() == command_reference.reference().strip()


def test_the_flags_and_exit_statuses_of_every_command_are_documented() -> None:
    text = (ROOT / "docs/reference/command.md").read_text()
    assert re.findall(r"^\| `(--[\w-]+)(?: \w+)?` \|", text.partition("## Commands")[0], re.MULTILINE) == list(COMMON)
    documented = set(map(int, re.findall(r"^\| (\d+) \|", text, re.MULTILINE)))
    assert documented == {*Exit, failures._BROKEN_PIPE}


def test_every_command_has_the_common_flags_and_a_schema() -> None:
    for parser in command_reference.leaves(cli.make_parser()):
        flags = {option for action in parser._actions for option in action.option_strings}
        assert flags >= {"--json", "--utc", "--no-input"}, parser.prog
        assert parser.description, parser.prog
        assert parser.prog.split(" ", 1)[1] in schemas(), parser.prog


def test_the_published_schemas_are_those_of_the_command() -> None:
    folder = ROOT / "docs/reference/command-schemas"
    published = {path.name: json.loads(path.read_text()) for path in folder.iterdir()}
    assert published == {command_reference.file_of(command): schema for command, schema in schemas().items()}


def test_the_statuses_of_keys_on_the_page_are_the_real_ones() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| .+ \| (yes|no) \| (.+) \|$", (ROOT / "docs/reference/command.md").read_text(), re.MULTILINE
    )
    assert {status: (published == "yes", signs != "no") for status, published, signs in rows} == {
        str(status): (use.published, use.signs) for status, use in RULES.items()
    }


@pytest.mark.parametrize(
    ("heading", "function"),
    [
        ("WebhookVerifier", WebhookVerifier),
        ("verified_webhook", fastapi.verified_webhook),
        ("verified_webhook", flask.verified_webhook),
    ],
)
def test_every_argument_of_a_receiver_is_documented_with_its_default(heading: str, function: Any) -> None:
    text = (ROOT / "docs/reference/receivers.md").read_text()
    section = text.partition(f"## `{heading}`\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\| .+ \|$", section, re.MULTILINE)
    documented = {argument: default.strip(" `") for argument, default in rows}
    real = inspect.signature(function).parameters.values()
    names = {time.time: "time.time"}
    defaults = {one.name: "" if one.default is one.empty else names.get(one.default, repr(one.default)) for one in real}
    assert documented == defaults


def test_every_attribute_of_a_verified_webhook_is_documented() -> None:
    text = (ROOT / "docs/reference/receivers.md").read_text()
    section = text.partition("## `VerifiedWebhook`\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [attribute.name for attribute in fields(VerifiedWebhook)]


# --- operator methods


def test_every_operator_method_is_documented_with_its_parameters() -> None:
    text = (ROOT / "docs/reference/api.md").read_text().partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| .+ \|$", text, re.MULTILINE)
    documented = {method: re.findall(r"`\**(\w+)`", parameters) for method, parameters in rows}
    public = {method: getattr(QueueMiddleware, method) for method in dir(QueueMiddleware) if not method.startswith("_")}
    real = {method: [name for name in inspect.signature(of).parameters if name != "self"] for method, of in public.items()}
    assert documented == real


def test_every_argument_of_a_selection_is_documented() -> None:
    text = (ROOT / "docs/reference/api.md").read_text().partition("\n## Selection\n")[2]
    selecting = [
        name for name in inspect.signature(QueueMiddleware.deliveries).parameters if name not in ("self", "after", "limit")
    ]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == selecting
