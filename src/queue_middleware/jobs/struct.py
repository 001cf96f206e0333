"""What a noun is made of.

They are msgspec structs and not dataclasses, because a request makes a dozen of them and these cost a tenth.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec

_PRIVATE = frozenset(
    {
        "answer", "body", "credentials", "data", "headers", "message", "on_complete", "query", "said", "salt", "secret",
        "stage", "target", "url", "url_template", "result_url", "result_url_template", "values", "webhook",
    }
)  # fmt: skip
"""Fields that hold what a client, a provider or an application has sent, or addresses, which may hold a key in their query."""


class Struct(msgspec.Struct, frozen=True, gc=False):
    """A frozen value. `replace` makes a changed copy. None of them can be part of a cycle, so the collector skips them.

    Its text tells nothing private, because texts of values end up in logs: of observers, of asyncio in debug mode, of errors.
    """

    public: ClassVar[frozenset[str]] = frozenset()
    """Fields that are shown all the same."""

    def __repr__(self) -> str:
        """Fields but the private ones, and of bytes only how many."""
        private = _PRIVATE - self.public
        shown = (f"{name}={_shown(getattr(self, name), hide=name in private)}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(shown)})"

    def replace(self, **changes: Any) -> Self:
        """A copy with other values in some fields."""
        return msgspec.structs.replace(self, **changes)


def _shown(value: Any, *, hide: bool) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return "<hidden>" if hide and value else repr(value)
