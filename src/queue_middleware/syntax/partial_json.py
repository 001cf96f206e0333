"""Reads a few members of a large JSON text: the text stays unparsed, and only requested parts become objects.

Creating objects for megabytes of JSON is one call that cannot be interrupted, half a second for 8 MiB, in whatever thread.
Skipping the rest takes a fiftieth of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

_DIRECT_POSITIONS = 256
"""Positions in an array that are read by skipping the rest."""
_MAX_COMMAS = 10**6
"""In an array with more commas, further positions are not read; reading up to there takes a tenth of a second."""
_SPACE = b" \t\r\n"


def is_object(text: Any) -> bool:
    """Whether this is the unparsed text of an object."""
    return isinstance(text, msgspec.Raw) and _first(text) == b"{"


def _first(text: msgspec.Raw) -> bytes:
    view = memoryview(text)
    start = 0
    while start < len(view) and view[start] in _SPACE:
        start += 1
    return bytes(view[start : start + 1])


def read_members(text: msgspec.Raw, names: tuple[str, ...]) -> Mapping[str, msgspec.Raw]:
    """The members of this object with these names; if a name is repeated, the last one."""
    found = _decoder_of_members(names).decode(text)
    fields = ((name, getattr(found, f"f{number}")) for number, name in enumerate(names))
    return {name: value for name, value in fields if value is not None}


def read_element(text: msgspec.Raw, position: int) -> msgspec.Raw | None:
    """The element at this position of an array, from 0."""
    if position < _DIRECT_POSITIONS:
        elements = [value for value in msgspec.structs.astuple(_BEGINNING.decode(text)) if value is not None]
    elif bytes(text).count(b",") <= _MAX_COMMAS:
        elements = msgspec.json.decode(text, type=list[msgspec.Raw])
    else:
        return None
    return elements[position] if position < len(elements) else None


@lru_cache(maxsize=64)
def _decoder_of_members(names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    rename = {f"f{number}": name for number, name in enumerate(names)}
    fields = [(field, msgspec.Raw, None) for field in rename]
    return msgspec.json.Decoder(msgspec.defstruct("Members", fields, rename=rename))


_BEGINNING: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct("Beginning", [(f"f{number}", msgspec.Raw, None) for number in range(_DIRECT_POSITIONS)], array_like=True)
)
