"""Every path, module, class, constant, table and test that the documentation names exists."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from queue_middleware import Settings
from queue_middleware.settings import option_variable
from tests.support.spans import documented_names

from .test_docs import PAGES, ROOT, name, problems

PACKAGE = ROOT / "src" / "queue_middleware"
TOP_FOLDERS = ("src", "tests", "docs", "examples", "benchmarks", ".ci")
CHECKED = [page for page in [*PAGES, ROOT / "benchmarks" / "README.md"] if "protocols" not in page.parts]
"""The protocols are texts about other software, with paths of it."""
ABOUT_THE_SOURCE = [
    page for page in CHECKED if name(page).startswith(("docs/decisions", "docs/explanation")) or name(page) == "CONTRIBUTING.md"
]
"""On these pages, `module.name` is a name of the source; on the others it may be one of the reader's code."""
HISTORY = ROOT / "docs/decisions/0036-packages-and-names.md"
"""Its table lists names of the past."""
FOREIGN = frozenset({
    "AsyncBaseTransport", "AsyncHTTPConnection", "Deployment", "Dockerfile", "EnvironmentFile", "ExecStart", "FAL_RUN_HOST",
    "FastAPIInstrumentor", "INSTALLED_APPS", "NetworkPolicy", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS",
    "OnRootMismatch", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod",
    "SECURE_DELETE", "StatefulSet", "Vary", "__class__", "_fetchers", "auto_vacuum", "callHandlers", "csrf_exempt",
    "depends_on", "httpcore", "lb_try_duration", "limit_conn", "livenessProbe", "logfire", "proxyUrl", "proxy_ignore_headers",
    "proxy_read_timeout", "readinessProbe", "realtime", "request_body", "requirements", "should_exit", "skimage",
    "startupProbe",
})  # fmt: skip
"""Identifiers of other software, which the source itself does not use."""
VARIABLES = frozenset(option_variable(option.name) for option in fields(Settings))
ATTRIBUTES = documented_names()
"""Names of spans, metrics and their attributes, which begin like those of modules."""
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"\.?\w[\w.-]*(?:/[\w.-]+)+/?")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_TESTS = re.compile(r"test_\w+\.py")


@cache
def code_in(page: Path) -> list[str]:
    """What the page has between backticks, each once, without its code blocks and without what 0036 calls old."""
    text = _FENCE.sub("", page.read_text())
    if page == HISTORY:
        text = re.sub(r"^\| `.+? \| ", "| ", text, flags=re.MULTILINE)
    return list(dict.fromkeys(_CODE.findall(text)))


@cache
def packages() -> frozenset[str]:
    return frozenset(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def is_missing_path(text: str) -> bool:
    """Whether it looks like a path of the repository or of the package, and leads nowhere."""
    if _TESTS.fullmatch(text):
        return not list((ROOT / "tests").rglob(text))
    if not _PATH.fullmatch(text):
        return False
    first = text.split("/")[0]
    if first in TOP_FOLDERS:
        return not (ROOT / text).exists()
    inside = PACKAGE / text
    return first in packages() and not (inside.exists() or inside.with_name(f"{inside.name}.py").exists())


@cache
def modules() -> dict[str, list[str]]:
    """The modules of the package by the last part of their name."""
    found: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] not in ("__init__", "__main__"):
            found.setdefault(parts[-1], []).append(".".join(parts))
    return found


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or an object of one."""
    parts = dotted.split(".")
    found = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], start=2):
        try:
            found = importlib.import_module(".".join(parts[:number]))
        except ImportError:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
    return True


def is_missing_object(text: str) -> bool:
    """Whether it begins with `queue_middleware.`, and is not the name of an object of the package."""
    is_dotted = _DOTTED.fullmatch(text) is not None and text.startswith("queue_middleware.")
    return is_dotted and text not in ATTRIBUTES and not resolves(text)


def is_missing_in_module(text: str) -> bool:
    """Whether it begins with the name of one of the package's packages or modules, and that has no such object."""
    first, _, rest = text.partition(".")
    if not rest or first == "request" or not _DOTTED.fullmatch(text):  # a request of Starlette, as in `request.app`
        return False
    if first in packages():
        return not resolves(f"queue_middleware.{text}")
    return first in modules() and not any(resolves(f"{module}.{rest}") for module in modules()[first])


@cache
def identifiers() -> frozenset[str]:
    """Every word of the source, its tests, examples and benchmarks, and every name of a file."""
    words: set[str] = set()
    for folder in ("src", "tests", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".sql") and path != Path(__file__):
                words.update(path.relative_to(ROOT).with_suffix("").parts, re.findall(r"\w+", path.read_text()))
    return frozenset(words)


def unknown_identifiers(text: str) -> list[str]:
    """The parts of a name in the code's notation that occur nowhere in the source. A plain word is not in that notation."""
    found = re.match(r"[A-Za-z_]\w*(?:[./]\w+)*(?=$|\(|\.py$|/$)", text)
    if not found:
        return []
    parts = re.split(r"[./]", found[0])
    if len(parts) == 1 and not re.search(r"_|[a-z][A-Z]|^[A-Z][a-z]", parts[0]):
        return []
    return [part for part in parts if not (part in identifiers() or part in VARIABLES or part in FOREIGN)]


def found_in_code(is_wrong: Callable[[str], Any]) -> Callable[[Path], list[str]]:
    return lambda page: [text for text in code_in(page) if is_wrong(text)]


def test_every_path_and_object_of_the_package_exists() -> None:
    assert problems(CHECKED, found_in_code(lambda text: is_missing_path(text) or is_missing_object(text))) == {}


def test_every_identifier_is_in_the_source() -> None:
    assert problems(CHECKED, found_in_code(unknown_identifiers)) == {}


def test_every_object_of_a_module_exists() -> None:
    assert problems(ABOUT_THE_SOURCE, found_in_code(is_missing_in_module)) == {}


def test_every_module_that_a_command_runs_exists() -> None:
    def missing(page: Path) -> list[str]:
        commands = re.findall(r"python -m ((?:benchmarks|examples|queue_middleware)[\w.]*)", page.read_text())
        return [module for module in commands if importlib.util.find_spec(module.rstrip(".")) is None]

    assert problems(CHECKED, missing) == {}


def test_no_exception_is_left_over() -> None:
    """An identifier that no page mentions needs no exception."""
    mentioned = {part for page in CHECKED for text in code_in(page) for part in re.findall(r"\w+", text)}
    assert mentioned >= FOREIGN


@pytest.mark.parametrize(
    ("text", "is_missing"),
    [
        ("worker/executor", False),
        ("worker/executor.py", False),
        ("worker/account", True),
        ("stores/", False),
        ("tests/meta/test_names.py", False),
        ("tests/contracts", True),
        ("test_names.py", False),
        ("test_no_such_thing.py", True),
        ("application/json", False),
        ("queue_middleware.verify.WebhookVerifier", False),
        ("queue_middleware.account", True),
        ("app.state", False),
    ],
)
def test_missing_paths_and_objects_are_found(text: str, is_missing: bool) -> None:
    assert (is_missing_path(text) or is_missing_object(text)) == is_missing


@pytest.mark.parametrize(
    ("text", "is_missing"),
    [
        ("jobs.leases.IS_LOST", False),
        ("jobs.leases.IS_FOUND", True),
        ("leases.IS_LOST", False),
        ("states.IS_LOST", True),
        ("app.state", False),
    ],
)
def test_objects_that_a_module_does_not_have_are_found(text: str, is_missing: bool) -> None:
    assert is_missing_in_module(text) == is_missing


@pytest.mark.parametrize(
    ("text", "unknown"),
    [("letterbox.IS_LOST", ["letterbox"]), ("WaitingRoom", ["WaitingRoom"]), ("aside", []), ("circuit.next_host_health", [])],
)
def test_unknown_identifiers_are_found(text: str, unknown: list[str]) -> None:
    assert unknown_identifiers(text) == unknown
