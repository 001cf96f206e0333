"""Frameworks with Sentry's own integrations, as `sentry_sdk.init` enables them: one issue for an error, and one trace."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.apps.sentry_frameworks import CASES

pytestmark = pytest.mark.slow

Events = list[dict[str, Any]]
WITHOUT_INTEGRATION = frozenset({"plain"})


@pytest.fixture(scope="module")
def sent() -> dict[str, Events]:
    """What each case has sent. In a program of its own, because the SDK patches the frameworks for ever."""
    command = (sys.executable, "-m", "tests.integration.apps.sentry_frameworks")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Events] = json.loads(done.stdout)
    return found


def transactions(events: Events, op: str) -> Events:
    found = [event for event in events if event.get("type") == "transaction"]
    return [event["contexts"]["trace"] for event in found if event["contexts"]["trace"]["op"] == op]


@pytest.mark.parametrize("case", CASES)
def test_an_error_is_one_issue_with_the_tags_of_its_request(case: str, sent: dict[str, Events]) -> None:
    (issue,) = [event for event in sent[case] if event.get("type") != "transaction"]
    (error,) = issue["exception"]["values"]
    assert error["type"] == "RuntimeError"
    assert (error["mechanism"]["type"] == "queue_middleware") == (case in WITHOUT_INTEGRATION)
    assert (issue["tags"]["queue.attempt"], issue["tags"]["queue.route"]) == ("1", "other")


@pytest.mark.parametrize("case", CASES)
def test_the_trace_leads_from_the_submission_into_the_framework(case: str, sent: dict[str, Events]) -> None:
    (process,) = transactions(sent[case], "queue.process")
    publish = [
        *transactions(sent[case], "queue.publish"),
        *[span for event in sent[case] for span in event.get("spans", ()) if span["op"] == "queue.publish"],
    ]
    assert [(span["trace_id"], span["span_id"]) for span in publish] == [(process["trace_id"], process["parent_span_id"])]
    inside = [each for each in transactions(sent[case], "http.server") if each.get("parent_span_id") == process["span_id"]]
    assert len(inside) == (0 if case in WITHOUT_INTEGRATION else 1)
    assert {each["trace_id"] for each in inside} <= {process["trace_id"]}
