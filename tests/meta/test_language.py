"""Documentation, docstrings and SQL comments are plain technical English: some words and phrases are banned."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from .test_docs import PAGES, ROOT, name

_PEOPLE = "he|him|his|whoever|somebody|nobody|anybody|everybody"
_SPEECH = "tells?|told|hears"
_PHRASES = (
    "all the same|as (?:it|they) stands?|for ever|last words?|life signs?|those that there are|whatever happens|whose turn"
)
_OLD = "brothers?|eldest|mend(?:s|ed)?|neighbours?|troubles?"
BANNED = re.compile(rf"\b(?:{_PEOPLE}|{_SPEECH}|{_PHRASES}|{_OLD})\b", re.IGNORECASE)
_QUOTED = re.compile(r"^```.*?^```$|`[^`\n]+`|^>[^\n]*$", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """The text without code and quotations; its lines keep their numbers."""
    return _QUOTED.sub(lambda quoted: re.sub(r"[^\n]", " ", quoted[0]), text)


def banned_words(text: str) -> list[str]:
    """Line number and word of each banned word."""
    lines = enumerate(text.splitlines(), start=1)
    return [f"line {number}: {found[0]}" for number, line in lines for found in BANNED.finditer(line)]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks" / "README.md"], ids=name)
def test_a_page_has_no_banned_words(page: Path) -> None:
    assert banned_words(prose(page.read_text())) == []


def test_code_and_quotations_may_say_what_they_say() -> None:
    text = "He waits.\n```\nhis = 1\n```\n> nobody\n`him` and somebody\n"
    assert banned_words(prose(text)) == ["line 1: He", "line 6: somebody"]


SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_docstrings_and_texts_have_no_banned_words(source: Path) -> None:
    texts = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Constant)]
    found = [(text.lineno, banned_words(prose(text.value))) for text in texts if isinstance(text.value, str)]
    assert [place for place in found if place[1]] == []


@pytest.mark.parametrize("source", sorted((ROOT / "src").rglob("*.sql")), ids=name)
def test_comments_in_sql_have_no_banned_words(source: Path) -> None:
    assert banned_words(prose(source.read_text())) == []
