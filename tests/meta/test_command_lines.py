"""Every call of the command in the documentation has arguments that the command accepts."""

from __future__ import annotations

import re
import shlex

from queue_middleware.cli import make_parser

from .test_docs import PAGES, blocks, name

_CALL = re.compile(r"(?:^|[\s|;(/])(queue-middleware \w[^|;&>\n]*)", re.MULTILINE)
_ELLIPSIS = re.compile(r"\[[^\]]*\]|^#")


def calls() -> list[tuple[str, list[str]]]:
    """Page and words of each call in a block of shell commands."""
    return [
        (name(page), shlex.split(call.removeprefix("queue-middleware "), comments=True))
        for page in PAGES
        for block in [*blocks(page, "sh"), *blocks(page, "")]
        for call in _CALL.findall(block.replace("\\\n", " "))
        if not _ELLIPSIS.search(call)
    ]


def is_valid(words: list[str]) -> bool:
    try:
        make_parser().parse_args(words)
    except SystemExit as ended:  # with 0 after `--help`
        return ended.code == 0
    return True


def test_the_calls_on_the_pages_are_valid() -> None:
    found = calls()
    assert len(found) >= 10
    assert [(page, words) for page, words in found if not is_valid(words)] == []


def test_a_call_that_is_not_valid_is_found() -> None:
    assert not is_valid(["keys", "forget"])
