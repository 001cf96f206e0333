"""The structure of the source, as `docs/explanation/architecture.md` describes it: the place and size of modules."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from statistics import median

import pytest

import queue_middleware

PACKAGE = Path(queue_middleware.__file__).parent
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES} - {PACKAGE})
TOP = {
    "__init__",
    "__main__",
    "middleware",
    "errors",
    "logging",
    "instrumentation",
    "verify",
    "settings",
    "option_parsers",
    "secret_parsers",
    "backoff",
    "background",
    "secret_file",
}
PACKAGES = {
    "jobs",
    "asgi",
    "outbound",
    "webhooks",
    "receivers",
    "tasks",
    "worker",
    "stores",
    "observability",
    "runtime",
    "web",
    "testing",
    "cli",
    "syntax",
    "events",
}
LONGEST_FILE = 300
LONGEST_FUNCTION = 40
VAGUE = {"utils", "helpers", "base", "core", "misc"}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_only_these_modules_are_at_the_top() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP
    assert {path.name for path in FOLDERS if path.parent == PACKAGE} == PACKAGES


def test_the_page_shows_the_layers_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    checked = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert re.findall(r"^ ?\d+  (.+)$", PAGE, re.MULTILINE) == checked


def test_the_page_shows_every_package() -> None:
    assert set(re.findall(r"^.── (\w+)/ ", PAGE, re.MULTILINE)) == PACKAGES
    assert set(re.findall(r"^\*\*`(\w+)`\*\*", PAGE, re.MULTILINE)) == PACKAGES


def test_files_have_at_most_300_lines() -> None:
    assert [name_of(path) for path in MODULES if len(path.read_text().splitlines()) > LONGEST_FILE] == []


def test_the_name_of_a_file_says_what_it_is() -> None:
    assert [name_of(path) for path in MODULES if path.stem in VAGUE] == []


def test_most_files_are_short() -> None:
    assert median(len(path.read_text().splitlines()) for path in MODULES if path.name != "__init__.py") <= 120


def long_functions(source: str) -> list[str]:
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION]


def test_functions_have_at_most_40_lines() -> None:
    assert {name_of(path): long for path in MODULES if (long := long_functions(path.read_text()))} == {}


def test_a_function_of_41_lines_is_found() -> None:
    assert long_functions("def short():" + "\n    pass" * 39) == []
    assert long_functions("class A:\n  def long():" + "\n    pass" * 40) == ["long"]


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if list(folder.glob("[!_]*.py"))], ids=name_of)
def test_packages_have_a_docstring_with_purpose_imports_and_start(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert "May import:" in text, "what it may import"
    assert "Begin with" in text, "where to begin reading"
    assert len(text.splitlines()[0]) > 20, "what it is for"
