"""Reads from docs/how-to which variables and code the pages recommend, for tests that use exactly those."""

from __future__ import annotations

import re
from pathlib import Path

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"
_SECTION = re.compile(r"^##+ (.+)\n((?:(?!##+ ).*\n)*)", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export (\w+)=(.+)$", re.MULTILINE)


def recipe(name: str) -> dict[str, str]:
    """The environment variables that the section with this heading exports."""
    return dict(_EXPORT.findall(block(name, "sh")))


def block(name: str, language: str, page: str = "fal-clients.md") -> str:
    """The only code block in this language in the section with this heading; backticks in the heading are ignored."""
    sections = {heading.replace("`", ""): text for heading, text in _SECTION.findall((HOW_TO / page).read_text())}
    (code,) = [code for kind, code in _BLOCK.findall(sections[name]) if kind == language]
    return code
