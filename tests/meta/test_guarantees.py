"""Every guarantee of the README has tests: the page on guarantees names them, and they exist."""

from __future__ import annotations

import re

import pytest

from .test_docs import ROOT

README = (ROOT / "README.md").read_text().partition("\n## What you can rely on\n")[2].partition("\n## ")[0]
PAGE = (ROOT / "docs/explanation/guarantees.md").read_text().partition("\n## How the guarantees are tested\n")[2]
ROWS = re.findall(r"^\| ([^`|]+) \| (`.+?`) \| .+ \|$", PAGE, re.MULTILINE)


def test_each_guarantee_of_the_readme_has_a_row() -> None:
    assert [guarantee for guarantee, _ in ROWS] == [
        text.rstrip(".") for text in re.findall(r"^\* \*\*(.+)\*\*$", README, re.MULTILINE)
    ]


@pytest.mark.parametrize(("guarantee", "tests"), ROWS)
def test_the_tests_of_a_guarantee_exist(guarantee: str, tests: str) -> None:
    paths = [ROOT / path for path in re.findall(r"`([^`]+)`", tests)]
    assert paths
    for path in paths:
        assert path.is_file() or list(path.glob("test_*.py")), path
