"""Describes a request on standard error while `submit --follow` waits for it, a line for each change."""

from __future__ import annotations

from .output import Terminal, size
from .queue_client import Event
from .response_output import Written


class ProgressLines:
    """Prints what is new in each status of one request."""

    def __init__(self, request_id: str, terminal: Terminal) -> None:
        self._prefix = f"{request_id}  "
        self._terminal = terminal
        self._last = ""

    def show(self, event: Event) -> None:
        """Print the log entries, and the state if it has changed."""
        for entry in event.get("logs") or ():
            if "progress" not in entry.get("labels", {}):  # the state shows it
                for line in str(entry.get("message", "")).splitlines():
                    self._note(f"{entry.get('level', 'INFO'):5} {line}")
        state = _state_text(event)
        if state and state != self._last:
            self._last = state
            self._note(state)

    def end(self, event: Event, written: Written) -> None:
        """Print how the request ended."""
        seconds = event.get("metrics", {}).get("inference_time")
        ran = f" in {seconds:.1f} s" if isinstance(seconds, int | float) else ""
        target = f" → {written.path}" if written.path else ""
        if "error" in event:
            self._note(f"failed{ran}: {event['error']}, {size(written.size)}{target}")
        else:
            self._note(f"completed{ran}: {written.status}, {size(written.size)}{target}")

    def _note(self, text: str) -> None:
        self._terminal.note(self._prefix + text)


def _state_text(event: Event) -> str:
    """The state in words; empty for the end, which `end` describes."""
    if event.get("status") == "IN_QUEUE":
        return f"in the queue, {event.get('queue_position', 0)} in front"
    if event.get("status") != "IN_PROGRESS":
        return ""
    progress = event.get("progress")
    if not progress:
        return "running"
    stage = progress.get("stage")
    return f"{progress['fraction']:4.0%}".replace("%", " %") + (f" {stage}" if stage else "")
