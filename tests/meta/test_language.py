"""Texts are plain technical English: no banned words and phrases, American spelling, one sentence per line."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from .test_docs import PAGES, ROOT, problems

ALL_PAGES = [*PAGES, ROOT / "benchmarks" / "README.md"]
_PEOPLE = "he|him|his|whoever|somebody|nobody|anybody|everybody"
_SPEECH = "tells?|told|hears"
_PHRASES = (
    "all the same|as (?:it|they) stands?|for ever|last words?|life signs?|those that there are|whatever happens|whose turn"
)
_OLD = "brothers?|eldest|mend(?:s|ed)?|neighbours?|troubles?"
BANNED = re.compile(rf"\b(?:{_PEOPLE}|{_SPEECH}|{_PHRASES}|{_OLD})\b", re.IGNORECASE)
OFF_THE_GLOSSARY = re.compile(
    r"\b(?:answer(?:s|ed|ing)?|tells?|told|hears?|heard|news|standings?|errands?|bells?|janitors?|heartbeats?)\b",
    re.IGNORECASE,
)
"""Words for which the glossary has another, such as `answer` for a response."""
_QUOTED = re.compile(r"^```.*?^```$|`[^`\n]+`|^>[^\n]*$", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """The text without code and quotations; its lines keep their numbers."""
    return _QUOTED.sub(lambda quoted: re.sub(r"[^\n]", " ", quoted[0]), text)


def banned_words(text: str) -> list[str]:
    """Line number and word of each banned word."""
    lines = enumerate(text.splitlines(), start=1)
    return [f"line {number}: {found[0]}" for number, line in lines for found in BANNED.finditer(line)]


def test_pages_have_no_banned_words() -> None:
    assert problems(ALL_PAGES, lambda page: banned_words(prose(page.read_text()))) == {}


def test_pages_use_the_words_of_the_glossary() -> None:
    assert problems(ALL_PAGES, lambda page: OFF_THE_GLOSSARY.findall(prose(page.read_text()))) == {}


def test_code_and_quotations_may_say_what_they_say() -> None:
    text = "He waits.\n```\nhis = 1\n```\n> nobody\n`him` and somebody\n"
    assert banned_words(prose(text)) == ["line 1: He", "line 6: somebody"]


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@cache
def nodes(source: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source.read_text())))


def texts(source: Path) -> list[tuple[int, str]]:
    """Docstrings and other texts with their lines."""
    constants = [node for node in nodes(source) if isinstance(node, ast.Constant)]
    return [(node.lineno, node.value) for node in constants if isinstance(node.value, str)]


def test_docstrings_and_texts_have_no_banned_words() -> None:
    assert (
        problems(
            SOURCES,
            lambda source: [(line, words) for line, text in texts(source) if (words := banned_words(prose(text)))],
        )
        == {}
    )


BRITISH = re.compile(
    r"\b(?:\w{3,}is(?:e[ds]?|ing|ations?)"
    r"|(?:behavi|col|fav|flav|hon|lab|neighb)our\w*"
    r"|analyse[ds]?|artefacts?|catalogues?|centre[ds]?|defence|fulfil|grey|judgements?|licence|towards|whilst"
    r"|cancel(?:ed|ing))\b",
    re.IGNORECASE,
)
_WITH_S = re.compile(r"(?:other|like)wise|(?:comprom|exerc|prom|prec|superv|rev|adv|surpr|enterpr|conc)is\w+|\w+(?:a|o)is\w+")
"""Words that have an s in American English too."""


def british_words(text: str) -> list[str]:
    """Each word that is spelled otherwise in American English, or otherwise than `CONTRIBUTING.md` says."""
    words = (found[0].lower() for found in BRITISH.finditer(text))
    return [word for word in words if not _WITH_S.fullmatch(word)]


def test_the_spelling_of_pages_is_american() -> None:
    assert problems(ALL_PAGES, lambda page: british_words(prose(page.read_text()))) == {}


def docstrings(source: Path) -> str:
    return "\n".join(ast.get_docstring(node) or "" for node in nodes(source) if isinstance(node, _DOCUMENTED))


def test_the_spelling_of_docstrings_is_american() -> None:
    assert problems(SOURCES, lambda source: british_words(prose(docstrings(source)))) == {}


def test_british_words_are_found() -> None:
    text = "Behaviour is normalised towards canceling colours; raise a promise, otherwise recognize it in four hours."
    assert british_words(text) == ["behaviour", "normalised", "towards", "canceling", "colours"]


_SECOND_SENTENCE = re.compile(r"""(?<!e\.g)(?<!i\.e)[.!?][)"*]* +["(*\[]*[A-Z]""")
_LIST_MARK = re.compile(r"^\s*(?:[*-]|\d+\.) +|^#+ .*")


def lines_with_two_sentences(text: str) -> list[str]:
    """Lines outside of code, quotations and tables that hold more than one sentence."""
    text = re.sub(r"\]\([^)\s]*\)", "]", prose(text))
    lines = (_LIST_MARK.sub("", line) for line in text.splitlines() if not line.startswith("|"))
    return [line for line in lines if _SECOND_SENTENCE.search(line)]


def test_a_line_holds_one_sentence() -> None:
    assert problems(ALL_PAGES, lambda page: lines_with_two_sentences(page.read_text())) == {}


def test_lines_with_two_sentences_are_found() -> None:
    text = "# 1. Heading\n1. One, e.g. This.\n* **One.** Two.\nOne ([page](a.md)). Two.\n| One. Two. |\n`one. Two.`\n"
    assert lines_with_two_sentences(text) == ["**One.** Two.", "One ([page]). Two."]


def test_comments_in_sql_have_no_banned_words() -> None:
    assert problems((ROOT / "src").rglob("*.sql"), lambda source: banned_words(prose(source.read_text()))) == {}
