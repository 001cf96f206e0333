"""The protocol pages that the source cites exist, and have the sections and headings that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_CITATION = re.compile(
    r'docs/reference/protocols/([\w.-]+\.md)((?:,? (?:and )?(?:sections? |to )?(?:\d+(?:\.\d+)?\b|"[^"\n]{1,60}"))*)'
)
_PLACE = re.compile(r'"([^"]+)"|(?<![\w.])(\d+(?:\.\d+)?)')
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def citations(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each cited page with the sections and headings that are named after it. A citation may continue on the next line."""
    for page, places in _CITATION.findall(re.sub(r"\s*\n\s*(?:# )?", " ", text)):
        quoted = [heading for heading, _ in _PLACE.findall(places) if heading]
        numbers = [number for _, number in _PLACE.findall(places) if number]
        # Numbers after a heading are points of the list below it.
        yield page, quoted or numbers


def cited() -> list[tuple[str, str, str]]:
    """Source file, page, and section number or heading; the latter is empty for a citation of a whole page."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for page, places in citations(path.read_text()):
            found += [(path.relative_to(ROOT).as_posix(), page, place) for place in places or [""]]
    return found


@pytest.mark.parametrize(("source", "page", "place"), cited())
def test_every_citation_resolves(source: str, page: str, place: str) -> None:
    path = ROOT / "docs" / "reference" / "protocols" / page
    assert path.is_file(), f"{source} cites {page}, which does not exist"
    headings = _HEADING.findall(path.read_text())
    sections = {heading.partition(" ")[0].rstrip(".") for heading in headings}
    assert not place or place in headings or place in sections, f"{source} cites {page}, {place!r}, which is not a heading"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(docs/reference/protocols/fal.md, section 9)", [("fal.md", ["9"])]),
        ("docs/reference/protocols/fal.md, section 1.2.", [("fal.md", ["1.2"])]),
        ("docs/reference/protocols/fal.md, sections 1, 3, 5 and 13).\n\n2 processes", [("fal.md", ["1", "3", "5", "13"])]),
        ("docs/reference/protocols/fal.md,\n    sections 2 to 6): 7", [("fal.md", ["2", "6"])]),
        ('docs/reference/protocols/asyncqueue.md,\n# "Callback URLs"', [("asyncqueue.md", ["Callback URLs"])]),
        (
            'docs/reference/protocols/asyncqueue.md, "Tasks" and "Extensions", 3 and 12',
            [("asyncqueue.md", ["Tasks", "Extensions"])],
        ),
        ("docs/reference/protocols/asyncqueue.md) and 3", [("asyncqueue.md", [])]),
    ],
)
def test_citations_are_found(text: str, expected: list[tuple[str, list[str]]]) -> None:
    assert list(citations(text)) == expected


def test_the_protocols_are_cited() -> None:
    assert {page for _, page, _ in cited()} >= {"asyncqueue.md"}
