"""Serves the application's lifespan with the queue inside: application up first and down last (ASGI lifespan specification)."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context, copy_context
from typing import Any, Protocol

from starlette.types import Message, Receive, Scope, Send

from .replay import App


class Lifecycle(Protocol):
    """What starts and stops with the application."""

    async def start(self, state: Mapping[str, Any] | None, context: Context) -> None:
        """Start. Raises the reason why that is impossible."""

    async def stop(self) -> None:
        """Stop. Idempotent."""

    def warn(self, message: str) -> None:
        """Warn the operator."""


async def run_lifespan(app: App, lifecycle: Lifecycle, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one lifespan scope. An application without lifespan support, however it shows that, is given one."""
    await _Lifespan(lifecycle, scope, receive, send).run(app)


class _Lifespan:
    def __init__(self, lifecycle: Lifecycle, scope: Scope, receive: Receive, send: Send) -> None:
        self._lifecycle = lifecycle
        self._scope = scope
        self._receive = receive
        self._send = send
        self._startup_received = False
        self._startup_answered = False
        self._failed = False
        self._shutdown_received = False
        self._no_lifespan_reason = ""

    async def run(self, app: App) -> None:
        try:
            await app(self._scope, self._receive_for_app, self._send_for_app)
        except Exception as error:
            # An exception before the response to the startup event means "no lifespan here"; Django raises ValueError.
            if self._startup_answered:
                await self._lifecycle.stop()
                raise
            self._no_lifespan_reason = f"the application seems to have no lifespan: {type(error).__name__}: {error}"
        if not self._failed and not self._startup_answered:
            await self._start_without_app()
        if self._failed:
            return
        if not self._shutdown_received:
            await self._receive()
            await self._lifecycle.stop()
            await self._send({"type": "lifespan.shutdown.complete"})

    async def _start_without_app(self) -> None:
        """Respond to the startup event in place of an application that has no lifespan."""
        if not self._startup_received:
            await self._receive()
        await self._start({"type": "lifespan.startup.complete"})
        if not self._failed and self._no_lifespan_reason:
            self._lifecycle.warn(self._no_lifespan_reason)

    async def _receive_for_app(self) -> Message:
        if self._failed:
            return {"type": "lifespan.shutdown"}
        message = await self._receive()
        self._startup_received = True
        if message["type"] == "lifespan.shutdown":
            self._shutdown_received = True
            await self._lifecycle.stop()
        return message

    async def _send_for_app(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            await self._start(message)
        elif not self._failed:
            if message["type"] == "lifespan.startup.failed":
                self._startup_answered = self._failed = True
            await self._send(message)

    async def _start(self, message: Message) -> None:
        """Start the queue, then report startup as complete; if that fails, report it and let the application shut down."""
        self._startup_answered = True
        state: dict[str, Any] | None = self._scope.get("state")
        try:
            # This runs inside the application's startup, so the context holds the variables that the startup has set.
            await self._lifecycle.start(state, copy_context())
        except Exception as error:
            self._failed = True
            await self._send({"type": "lifespan.startup.failed", "message": f"queue_middleware: {error}"})
            return
        await self._send(message)
