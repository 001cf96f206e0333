"""The OpenAPI document agrees with the routing tables, and its schemas with the real responses."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest

from queue_middleware import errors
from queue_middleware.jobs.failures import STATUS, error_type, failure_body
from queue_middleware.jobs.log_lines import LogLevel, LogLine
from queue_middleware.jobs.models import ErrorType, Failure, Job, JobResult, JobState, Progress
from queue_middleware.runtime.readiness import Reason
from queue_middleware.tasks import representation
from queue_middleware.tasks.models import TaskPage, TaskStatus
from queue_middleware.tasks.polling.config import render_poll_config
from queue_middleware.tasks.polling.providers import PROVIDERS, providers_body
from queue_middleware.web.asyncqueue import schema as taskrequests
from queue_middleware.web.asyncqueue.routes import TaskOperation, find_task_route
from queue_middleware.web.fal import responses
from queue_middleware.web.fal.logs import entries_json
from queue_middleware.web.fal.responses import Links, error_response
from queue_middleware.web.fal.routes import METHODS, Operation, find_route
from queue_middleware.web.openapi import document
from queue_middleware.web.ops.routes import PATHS
from queue_middleware.webhooks.formats.fal import webhook_body
from queue_middleware.webhooks.signing.keyring import jwks
from queue_middleware.webhooks.signing.keys import KeyPair
from tests.support.factories import make_job_view, make_response, make_task_record

ENTRY = entries_json([LogLine(1_760_000_000_000_000, LogLevel.WARN, "half way", {"stage": "upscaling"}, number=1)])

ID = "0192f0c0-0000-7000-8000-000000000000"
LINKS = Links("https://api.example.com/fal/queue")
DOCUMENT: dict[str, Any] = json.loads(document(LINKS.base))
NAMES = {"request_id": ID, "path": "generate", "owner": "acme", "alias": "pictures"}
IDS = {"task_id": ID, "callback_id": "abc", "signal_token": "abc"}
OPS = {path: item for path, item in DOCUMENT["paths"].items() if path in PATHS}
FAL = {path: item for path, item in DOCUMENT["paths"].items() if not path.startswith("/v1/") and path not in OPS}
TASKS = {path: item for path, item in DOCUMENT["paths"].items() if path.startswith("/v1/")}


def operations(paths: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(path, method, operation, id=f"{method.upper()} {path}")
        for path, item in paths.items()
        for method, operation in item.items()
    ]


def test_its_server_is_the_prefix_as_the_client_sees_it() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["servers"] == [{"url": LINKS.base}]
    assert json.loads(document('http://a", "x": "'))["servers"] == [{"url": 'http://a", "x": "'}]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", DOCUMENT["info"]["version"])


@pytest.mark.parametrize(("path", "method", "operation"), operations(FAL))
def test_every_operation_is_a_route(path: str, method: str, operation: dict[str, Any]) -> None:
    route = find_route(method.upper(), path.format(**NAMES))
    assert bool(route.request_id) == ("{request_id}" in path)
    assert bool(route.app) == path.startswith("/run/")
    found = [resolved(parameter) for parameter in operation["parameters"]]
    assert [parameter["name"] for parameter in found if parameter["in"] == "path"] == re.findall(r"{(\w+)}", path)


@pytest.mark.parametrize(("path", "method", "operation"), operations(TASKS))
def test_every_operation_of_tasks_is_a_route(path: str, method: str, operation: dict[str, Any]) -> None:
    route = find_task_route(method.upper(), path.removeprefix("/v1").format(**IDS))
    found = [resolved(parameter) for parameter in operation["parameters"]]
    assert [parameter["name"] for parameter in found if parameter["in"] == "path"] == re.findall(r"{(\w+)}", path)
    assert bool(route.id) == ("{" in path)


def test_every_route_of_tasks_has_its_operation() -> None:
    found = [
        find_task_route(method.upper(), path.removeprefix("/v1").format(**IDS)).operation
        for path, item in TASKS.items()
        for method in item
    ]
    assert sorted(found) == sorted(TaskOperation)


def test_every_health_route_has_its_operation() -> None:
    assert {path: list(item) for path, item in OPS.items()} == {path: ["get"] for path in PATHS}
    reasons = DOCUMENT["components"]["schemas"]["NotReady"]["properties"]["because"]["items"]["enum"]
    assert reasons == list(Reason)


def test_every_operation_of_fal_has_all_its_methods() -> None:
    found = {path: set(item) for path, item in FAL.items()}
    for path, methods in found.items():
        operation = find_route(next(iter(methods)).upper(), path.format(**NAMES)).operation
        assert methods == {method.lower() for method in METHODS[operation]}
    documented = {find_route(next(iter(methods)).upper(), path.format(**NAMES)).operation for path, methods in found.items()}
    assert documented == set(Operation)


@pytest.mark.parametrize(("is_asked", "takes_keys"), [(False, False), (True, False), (True, True)])
def test_every_reference_resolves_and_every_component_is_used(is_asked: bool, takes_keys: bool) -> None:
    found = json.loads(document(LINKS.base, needs_authentication=is_asked, accepts_keys=takes_keys))
    used = set(re.findall(r'"#/(components/\w+/[\w-]+)"', json.dumps(found)))
    schemes = {
        name for item in found["paths"].values() for one in item.values() for way in one.get("security", ()) for name in way
    }
    used |= {f"components/securitySchemes/{name}" for name in schemes}
    there = {f"components/{kind}/{name}" for kind, named in found["components"].items() for name in named}
    assert used == there


def test_operations_that_need_a_key_declare_it_if_keys_are_configured() -> None:
    assert "401" not in DOCUMENT["paths"]["/submit/{path}"]["post"]["responses"]
    with_accounts = json.loads(document(LINKS.base, needs_authentication=True))["paths"]
    found = json.loads(document(LINKS.base, needs_authentication=True, accepts_keys=True))["paths"]
    open_paths = {
        "/.well-known/jwks.json",
        "/openapi.json",
        *PATHS,
        "/v1/providers",
        "/v1/callbacks/{callback_id}",
        "/v1/signals/{signal_token}",
    }
    for path, item in found.items():
        for method, operation in item.items():
            assert ("security" in operation) == (path not in open_paths)
            assert "security" not in with_accounts[path][method]
            if path not in open_paths:
                assert "401" in operation["responses"]
                assert "401" in with_accounts[path][method]["responses"]


def test_no_schema_changes_the_type_of_an_inherited_property() -> None:
    """Redoc logs an error for that and does not display the property."""
    schemas = DOCUMENT["components"]["schemas"]

    def properties(schema: dict[str, Any]) -> dict[str, Any]:
        return {name: found for part in ancestors(schema) for name, found in part.get("properties", {}).items()}

    def ancestors(schema: dict[str, Any]) -> list[dict[str, Any]]:
        parents = [resolved(reference) for reference in schema.get("allOf", ())]
        return [*parents, *(one for parent in parents for one in ancestors(parent))]

    for schema in schemas.values():
        inherited = properties(schema)
        for name, found in schema.get("properties", {}).items():
            if name in inherited and "type" in found:
                assert found["type"] == inherited[name].get("type"), name


def test_every_failure_status_is_documented() -> None:
    names = {error_type(Failure(kind, "")) for kind in ErrorType}
    assert set(DOCUMENT["components"]["schemas"]["ErrorType"]["enum"]) == names
    found = DOCUMENT["paths"]["/requests/{request_id}/response"]["get"]["responses"]
    assert {str(status) for status in STATUS.values()} < set(found)


def resolved(reference: dict[str, Any]) -> dict[str, Any]:
    node: Any = DOCUMENT
    for part in reference["$ref"].split("/")[1:]:
        node = node[part]
    return node


def check(name: str, body: bytes) -> None:
    """Raise if the body does not match the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(json.loads(body))


def job(state: JobState, **changes: Any) -> Job:
    return make_job_view(state, request_id=ID, **changes)


FAILED = Failure(ErrorType.RUNNER_DISCONNECTED, "gone")
BODIES = [
    ("Submitted", responses.submitted_body(ID, 0, LINKS)),
    ("Waiting", responses.status_body(job(JobState.QUEUED, position=2), LINKS)),
    ("Waiting", responses.status_body(job(JobState.DELAYED, position=0), LINKS, ENTRY)),
    ("Running", responses.status_body(job(JobState.RUNNING, started_at=1), LINKS)),
    ("Running", responses.status_body(job(JobState.RUNNING, started_at=1, progress=Progress(0.5)), LINKS)),
    ("Completed", responses.status_body(job(JobState.COMPLETED, started_at=1, finished_at=2, status=200), LINKS)),
    ("Completed", responses.status_body(job(JobState.COMPLETED, started_at=1, finished_at=2, status=422), LINKS)),
    ("Completed", responses.status_body(job(JobState.FAILED, finished_at=2, failure=FAILED), LINKS, ENTRY)),
    ("Failure", failure_body(FAILED)),
    ("Refusal", error_response(errors.BadRequest("no"))[0]),
    ("Refusal", error_response(errors.QueueFull("no", 5))[0]),
    ("Unknown", responses.NOT_FOUND),
    ("CancelRequested", responses.CANCEL_REQUESTED),
    ("AlreadyCompleted", responses.ALREADY_COMPLETED),
    ("Keys", json.dumps(jwks((KeyPair(bytes(32)),))).encode()),
    ("Webhook", webhook_body(JobResult(job(JobState.COMPLETED, status=200), make_response()))),
    ("Webhook", webhook_body(JobResult(job(JobState.COMPLETED, status=200), make_response(b"text")))),
    ("Webhook", webhook_body(JobResult(job(JobState.FAILED, failure=FAILED), None))),
    (
        "CreatedTask",
        representation.created_body(
            make_task_record(response=None), {"callbackId": "a", "callbackUrl": "b", "signalToken": "c"}
        ),
    ),
    ("OneTask", representation.task_body(make_task_record())),
    ("OneTask", representation.task_body(make_task_record(response=make_response(b"\xff")))),
    ("OneTask", representation.task_body(make_task_record(status=TaskStatus.DELAYED, due_at=1_800_000_000_000, response=None))),
    ("TaskPage", representation.page_body(TaskPage((make_task_record(),), 7), 1, 0)),
    ("TaskCompletion", representation.completion_body(make_task_record())),
    ("TaskCompletion", representation.completion_body(make_task_record(), "too large")),
    ("TaskError", representation.error_body("no")),
    ("Providers", providers_body()),
    (
        "NewTask",
        json.dumps({"targetUrl": "/x", "pollConfig": render_poll_config(next(iter(PROVIDERS.values())).poll)}).encode(),
    ),
    ("Submitted", responses.receipt_body(job(JobState.QUEUED, position=2), LINKS)),
    ("Submitted", responses.receipt_body(job(JobState.RUNNING, started_at=1, progress=Progress(0.5)), LINKS)),
    ("Submitted", responses.receipt_body(job(JobState.COMPLETED, started_at=1, finished_at=2, status=200), LINKS)),
    ("Submitted", responses.receipt_body(job(JobState.FAILED, finished_at=2, failure=FAILED), LINKS)),
]


@pytest.mark.parametrize(("name", "body"), BODIES)
def test_real_bodies_are_as_described(name: str, body: bytes) -> None:
    check(name, body)


@pytest.mark.parametrize(("name", "body"), [("Waiting", BODIES[3][1]), ("Completed", BODIES[1][1]), ("Failure", BODIES[9][1])])
def test_the_descriptions_distinguish_the_bodies(name: str, body: bytes) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        check(name, body)


def test_the_documented_fields_of_a_task_are_those_that_are_read() -> None:
    assert set(DOCUMENT["components"]["schemas"]["NewTask"]["properties"]) == set(taskrequests._FIELDS)
    assert set(DOCUMENT["components"]["schemas"]["TaskStatus"]["enum"]) == set(TaskStatus)


def test_the_maximum_wait_is_that_of_the_service() -> None:
    components = json.loads(document("https://service.test/fal/queue", max_wait=60.0))["components"]
    assert components["parameters"]["fal_callback_timeout"]["schema"]["maximum"] == 60
    assert components["schemas"]["NewTask"]["properties"]["maxWaitTime"]["maximum"] == 60
