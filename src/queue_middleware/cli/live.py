"""Prints a text again and again: in place on a terminal with `rich`, otherwise one below the other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any


async def repeat(text: Callable[[], Awaitable[str]], interval: float) -> None:
    """Print the text that `text` returns, every `interval` seconds, until the operator interrupts."""
    live = _live() if sys.stdout.isatty() else None
    if live is None:
        while True:
            print(f"{await text()}\n", flush=True)
            await asyncio.sleep(interval)
    with live:
        while True:
            live.update(_plain(await text()), refresh=True)
            await asyncio.sleep(interval)


def _live() -> Any:
    """An area of the terminal that is replaced; None without `rich`, which the extra `cli` installs."""
    try:
        from rich.live import Live
    except ImportError:
        return None
    return Live(auto_refresh=False)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # without markup: clients choose parts of it
