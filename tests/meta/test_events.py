"""The reference page of events has the same events and fields as the module, and no field may contain a secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from queue_middleware.events import ApplicationError, Event, ServiceError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "events.md"
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)
KINDS = get_args(Event)
SCALARS = ("str", "int", "float", "bool", "JobState", "ErrorType", "Action", "WebhookKind")


def test_the_page_lists_all_events_with_their_fields_in_order() -> None:
    listed = {name: re.findall(r"`(\w+)`", fields) for name, fields in ROW.findall(PAGE.read_text("utf-8"))}
    assert listed == {kind.__name__: [field.name for field in msgspec.structs.fields(kind)] for kind in KINDS}
    assert list(listed) == [kind.__name__ for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_events_are_flat(kind: type[Event]) -> None:
    for name, annotation in kind.__annotations__.items():
        if annotation.startswith("ClassVar") or (name == "error" and kind in (ApplicationError, ServiceError)):
            continue
        assert annotation.removesuffix(" | None") in SCALARS, f"{kind.__name__}.{name}"
