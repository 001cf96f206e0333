"""What a noun is made of.

They are msgspec structs and not dataclasses, because a request makes a dozen of them and these cost a tenth.
"""

from __future__ import annotations

from typing import Any, Self

import msgspec


class Value(msgspec.Struct, frozen=True, gc=False):
    """A frozen value. `replace` makes a changed copy. None of them can be part of a cycle, so the collector skips them."""

    def replace(self, **changes: Any) -> Self:
        """A copy with other values in some fields."""
        return msgspec.structs.replace(self, **changes)
