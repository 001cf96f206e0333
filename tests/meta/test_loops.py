"""Each test has its own event loop; only the tests of one module may share one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]


def wide_fixtures(path: Path) -> Iterator[ast.AST]:
    """The functions of a file that are fixtures for other files too."""
    for node in ast.walk(ast.parse(path.read_text())):
        for decorator in getattr(node, "decorator_list", ()):
            words = {word.arg: word.value for word in getattr(decorator, "keywords", ())}
            if isinstance(words.get("scope"), ast.Constant) and words["scope"].value in ("package", "session"):
                yield node


def files() -> Iterator[Any]:
    for path in sorted(TESTS.rglob("*.py")):
        if 'scope="' in path.read_text():
            yield pytest.param(path, id=path.relative_to(TESTS).as_posix())


@pytest.mark.parametrize("path", list(files()))
def test_no_fixture_keeps_an_event_loop_for_tests_of_other_modules(path: Path) -> None:
    """Otherwise all of them would run in one loop, and what some leave behind would fail others, in the complete suite only."""
    assert [node.name for node in wide_fixtures(path) if isinstance(node, ast.AsyncFunctionDef)] == []


def test_the_fixtures_are_found() -> None:
    """Ensures that the test above checks something."""
    found = [getattr(node, "name", "") for node in wide_fixtures(TESTS / "acceptance/clients/conftest.py")]
    assert {"service", "network", "environments"} <= set(found)
