"""The chart of the report: panels of horizontal bars, as SVG."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from .runner import number
from .scenario import Figure, Outcome

_WIDTH = 860
_LABEL = 330
_BAR = 420
_ROW = 24
_TITLE = 44
_OWN = ("other routes", "submitted", "stored", "webhook", "queue_middleware")
"""How the names of the variants with this queue begin."""
_COLORS = {"queue": "#2f6fbd", "other": "#9aa5b1"}


@dataclass(frozen=True)
class Bar:
    """One row."""

    label: str
    value: float
    text: str
    color: str = "other"


@dataclass(frozen=True)
class Panel:
    """Bars with a common scale."""

    title: str
    bars: Sequence[Bar]


def panels(outcomes: Sequence[Outcome]) -> list[Panel]:
    """What the chart shows of a run: throughput relative to the bare application, and times against the length of the queue."""
    named = {outcome.scenario.name: outcome for outcome in outcomes}
    shares = [bar for name in ("hot-path", "webhooks", "peers") if name in named for bar in _shares(named[name])]
    shown = [Panel("Requests or jobs per second, relative to the bare application of the same run", _unique(shares))]
    if "queue-length" in named:
        shown.append(Panel("Time of an operation against the waiting requests, µs", list(_times(named["queue-length"]))))
    return [panel for panel in shown if panel.bars]


def _shares(outcome: Outcome) -> Iterator[Bar]:
    for variant in outcome.variants():
        values = Figure("", "", variant, "per second", ("bare", "per second")).values(outcome.rounds)
        if values:
            share = statistics.median(values)
            own = variant.startswith(_OWN)
            label = f"queue: {variant}" if own and not variant.startswith("queue") else variant
            yield Bar(label, share, number(share), "queue" if own else "other")


def _unique(bars: Sequence[Bar]) -> list[Bar]:
    """The bars, longest first; of several with one label only the first."""
    found: dict[str, Bar] = {}
    for bar in bars:
        found.setdefault(bar.label, bar)
    return sorted(found.values(), key=lambda bar: -bar.value)


def _times(outcome: Outcome) -> Iterator[Bar]:
    for operation in ("status", "submit", "claim"):
        for variant in outcome.variants():
            value = outcome.median(variant, operation)
            if value is not None:
                yield Bar(f"{operation}, {variant}", value, number(value), "queue")


def svg(shown: Sequence[Panel]) -> str:
    """All panels, one below the other. It has a background of its own, because pages are light or dark."""
    height = sum(_height(panel) for panel in shown) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape('; '.join(panel.title for panel in shown))}</title>",
        '<g font-family="system-ui, sans-serif" font-size="13" fill="#1f2933">',
        f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
    ]
    top = 0
    for panel in shown:
        lines += _panel(panel, top)
        top += _height(panel)
    return "\n".join([*lines, "</g>", "</svg>"]) + "\n"


def _height(panel: Panel) -> int:
    return _TITLE + _ROW * len(panel.bars)


def _panel(panel: Panel, top: int) -> Iterator[str]:
    yield f'<text x="16" y="{top + 28}" font-weight="600">{escape(panel.title)}</text>'
    longest = max(bar.value for bar in panel.bars) or 1
    for number_of_row, bar in enumerate(panel.bars):
        y = top + _TITLE + number_of_row * _ROW
        width = max(1.0, bar.value / longest * _BAR)
        yield f'<text x="{_LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>'
        yield f'<rect x="{_LABEL}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 8}" rx="2" fill="{_COLORS[bar.color]}"/>'
        yield f'<text x="{_LABEL + width + 6:.1f}" y="{y + 14}">{escape(bar.text)}</text>'
