"""One definition of JSON for results, callbacks, signals, tasks and the responses of providers.

JSON is a text of RFC 8259: UTF-8, with or without a byte order mark (§8.1 lets a parser ignore it). Numbers of any size,
escaped halves of surrogate pairs, repeated names in an object (the last counts) and deep nesting are JSON; NaN, Infinity,
comments and trailing commas are not. A value that Python cannot represent keeps its text: where a part of such a text is stored
or passed on, its bytes are. Pure and synchronous; a large text takes time, so callers parse it in a thread.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Final

import msgspec

LARGE_BYTES = 128 * 1024
"""Bytes of JSON that are decoded in one call: some milliseconds, during which the event loop is blocked."""

MAX_SCANNED_BYTES = 256 * 1024
"""Bytes of the largest text that is scanned token by token, which takes some tenths of a second. A larger text that is nested
too deeply for the fast parser (some hundred levels) is refused: RFC 8259 §9 lets a parser limit both."""

MISSING: Final = object()
"""The result of reading text that is not JSON, or a path without a value. Different from null."""

_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_UP_TO_HALF = re.compile(
    rb"(?:[^\\]++|\\(?!u[dD][89a-fA-F]).|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+"
    rb"(\\u[dD][89a-fA-F][0-9a-fA-F]{2})",
    re.DOTALL,
)
_HALVES = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_NAME = re.compile(rb"(" + _STRING + rb")[ \t\n\r]*+:[ \t\n\r]*+")
_SCALAR = re.compile(_STRING + rb"|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null")


class Unparsable(bytes):
    """The text of a value that Python cannot represent, e.g. `1e400`."""

    def __str__(self) -> str:
        return self.decode("ascii", "replace")


def _is_json(text: bytes) -> bool:
    """Whether a text without byte order mark is JSON by the definition of this module."""
    try:
        return (text.isascii() or bool(text.decode("utf-8"))) and _is_simple(text)
    except UnicodeDecodeError:
        return False
    except RecursionError:
        return _split(text) is not None
    except msgspec.DecodeError:
        # The fast parser refuses halves of surrogate pairs. Everything else that it refuses is not JSON.
        return _HALF.search(text) is not None and (
            _split(text) is not None or _decoded(_replace_half_pairs(text), msgspec.Raw) is not MISSING
        )


def _is_simple(text: bytes) -> bool:
    msgspec.json.decode(text, type=msgspec.Raw)
    return True


def embeddable(text: bytes) -> bytes | None:
    """The text as it can be embedded in another JSON text: without byte order mark; the same object if it has none.

    None if the text is not JSON, or nested so deeply (some hundred levels) that common parsers would refuse the whole.
    """
    text = strip_bom(text)
    try:
        _is_simple(text)
        return text if text.isascii() or text.decode("utf-8") else None
    except (RecursionError, UnicodeDecodeError):
        return None
    except msgspec.DecodeError:
        return text if _is_json(text) and _parses(text) else None


def _parses(text: bytes) -> bool:
    try:
        json.loads(text, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        return False
    return True


def strip_bom(text: bytes) -> bytes:
    """The text without its byte order mark, if it has one."""
    return text.removeprefix(codecs.BOM_UTF8)


def read_json(text: bytes) -> Any:
    """The value of a JSON text; `MISSING` if the text is not JSON.

    A large object or array stays unparsed, as `msgspec.Raw`; `partial_json` reads its members. A text with a value that Python
    cannot represent is parsed one level at a time: its parts are `msgspec.Raw`, which `parse_part` parses.
    """
    text = strip_bom(text)
    if len(text) <= LARGE_BYTES and (value := _decoded(text)) is not MISSING:
        return value
    try:
        text.decode()  # unparsed text is not checked as closely
    except UnicodeDecodeError:
        return MISSING
    return _parse_level(text)


def parse_part(value: Any) -> Any:
    """The value of a part that `read_json` returned; parts of it may still be unparsed."""
    if not isinstance(value, msgspec.Raw):
        return value
    text = bytes(value)
    if len(text) <= LARGE_BYTES and (found := _decoded(text)) is not MISSING:
        return found
    return _parse_level(text)


def encode(value: Any) -> bytes:
    """The JSON text of a value that was read; unparsed parts are copied."""
    if isinstance(value, Unparsable):
        return bytes(value)
    return msgspec.json.encode(value)


def _decoded(text: bytes, kind: Any = Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except _FAULTS:
        return MISSING


def _parse_level(text: bytes) -> Any:
    """Parse one level; a large text stays unparsed as a whole, because creating objects for megabytes blocks all threads."""
    first = text[_SPACE.match(text).end() :][:1]  # type: ignore[union-attr]  # it matches everything
    if first not in (b"{", b"["):
        return _scalar(text.strip(b" \t\n\r"))
    parts: Any = dict[str, msgspec.Raw] if first == b"{" else list[msgspec.Raw]
    quick = _decoded(text, msgspec.Raw if len(text) > LARGE_BYTES else parts)
    if quick is not MISSING:
        return quick
    members = _split(text)
    if members is None:
        paired = _replace_half_pairs(text) if len(text) > MAX_SCANNED_BYTES and _HALF.search(text) else text
        return MISSING if paired == text else _parse_level(paired)
    if first == b"[":
        return [msgspec.Raw(value) for _, value in members]
    return {_string(name): msgspec.Raw(value) for name, value in members}


def _scalar(text: bytes) -> Any:
    value = _decoded(text)
    if value is not MISSING:
        return value
    if not _is_json(text):
        return MISSING
    return _string(text) if text.startswith(b'"') else Unparsable(text)


def _string(text: bytes) -> str:
    """The value of a string; half of a surrogate pair is not a character and becomes U+FFFD, the replacement character."""
    return _HALVES.sub("\ufffd", json.loads(text))


def _split(text: bytes) -> list[tuple[bytes, bytes]] | None:
    """Names and values of the outermost object, or values of the outermost array with empty names; None if not JSON.

    Works without recursion, so no nesting is too deep. A scalar has no parts. None also above `MAX_SCANNED_BYTES`.
    """
    if len(text) > MAX_SCANNED_BYTES:
        return None
    scan = _Scan(text)
    return scan.members if scan.run() else None


def _replace_half_pairs(text: bytes) -> bytes:
    """The text with halves of surrogate pairs replaced by U+FFFD."""
    paired, start = bytearray(), 0
    while found := _UP_TO_HALF.match(text, start):
        paired += text[start : found.start(1)] + b"\\ufffd"
        start = found.end()
    return bytes(paired + text[start:]) if start else text


class _Scan:
    """One pass over a text: the position, the open containers, and the parts of the outermost container."""

    def __init__(self, text: bytes) -> None:
        self.members: list[tuple[bytes, bytes]] = []
        self._text = text
        self._open = bytearray()
        self._at = 0
        self._name = b""
        self._start = 0
        self._skip()

    def run(self) -> bool:
        """Whether the text is JSON."""
        while self._begin_value():
            while True:
                if not self._open:
                    self._skip()
                    return self._at == len(self._text)
                following = self._end_value()
                if following is None:
                    return False
                if following:
                    break
        return False

    def _skip(self, more: int = 0) -> int:
        """Skip `more` bytes and the whitespace after them; return the byte there, 0 at the end."""
        self._at = at = _SPACE.match(self._text, self._at + more).end()  # type: ignore[union-attr]  # it matches everything
        return self._text[at] if at < len(self._text) else 0

    def _begin_value(self) -> bool:
        """Skip a scalar, an empty container, or the beginnings of containers up to the first of these."""
        while True:
            if len(self._open) == 1:
                self._start = self._at
            kind = self._text[self._at] if self._at < len(self._text) else 0
            if kind not in b"[{":
                found = _SCALAR.match(self._text, self._at)
                self._at = found.end() if found else self._at
                return found is not None
            self._open.append(kind + 2)  # in ASCII the closing bracket is two after the opening one
            if self._skip(1) == kind + 2:
                return True
            if kind == ord("{") and not self._skip_name():
                return False

    def _skip_name(self) -> bool:
        found = _NAME.match(self._text, self._at)
        if found is None:
            return False
        if len(self._open) == 1:
            self._name = found[1]
        self._at = found.end()
        return True

    def _end_value(self) -> bool | None:
        """After a value: True if another one follows, False if a container was closed, None for anything else."""
        end = self._at
        following = self._skip()
        if len(self._open) == 1 and end > self._start and self._start:
            self.members.append((self._name, self._text[self._start : end]))
            self._start = 0
        if following == self._open[-1]:
            self._open.pop()
            self._at += 1
            return False
        if following != ord(","):
            return None
        self._skip(1)
        if self._open[-1] == ord("}") and not self._skip_name():
            return None
        return True
