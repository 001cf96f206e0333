"""Base class of the queue's frozen values.

These are msgspec structs and not dataclasses: a request makes a dozen of them, and structs cost a tenth.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec

_PRIVATE = frozenset(
    {
        "body", "callback_id", "credentials", "data", "fal_headers", "headers", "labels", "message", "on_complete", "query",
        "replayed", "response_body", "result_url", "result_url_template", "salt", "stage", "target", "url", "url_template",
        "webhook",
    }
)  # fmt: skip
"""Fields with data that a client, a provider or an application has sent, and URLs, whose query may contain a key."""


class Struct(msgspec.Struct, frozen=True, gc=False):
    """A frozen value. `replace` makes a changed copy. Values cannot be part of a cycle, so the garbage collector skips them.

    The repr hides private fields, because reprs end up in logs: of observers, of asyncio in debug mode, of errors.
    """

    public: ClassVar[frozenset[str]] = frozenset()
    """Private names that are shown in the repr of this class."""
    private: ClassVar[frozenset[str]] = frozenset()
    """Further names that are private in this class."""

    def __repr__(self) -> str:
        """All fields except private ones; bytes only as their length."""
        private = (_PRIVATE | self.private) - self.public
        shown = (f"{name}={_shown(getattr(self, name), hide=name in private)}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(shown)})"

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


def _shown(value: Any, *, hide: bool) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return "<hidden>" if hide and value else repr(value)
