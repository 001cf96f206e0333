"""The application's lifespan with the queue inside: the application first up and last down (ASGI lifespan specification)."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from .replay import App
from .runtime import Runtime


async def run_lifespan(app: App, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one lifespan scope. An application that has no lifespan, however it says so, is given one."""
    await _Lifespan(runtime, scope, receive, send).run(app)


class _Lifespan:
    def __init__(self, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
        self._runtime = runtime
        self._scope = scope
        self._receive = receive
        self._send = send
        self._asked = False
        self._answered = False
        self._failed = False
        self._told_to_stop = False
        self._lacks_lifespan = ""

    async def run(self, app: App) -> None:
        try:
            await app(self._scope, self._receive_for_app, self._send_for_app)
        except Exception as error:
            # Before start-up is answered it means "no lifespan here"; Django raises ValueError for the whole protocol.
            if self._answered:
                await self._runtime.stop()
                raise
            self._lacks_lifespan = f"the application has no lifespan, as it seems: {type(error).__name__}: {error}"
        if self._failed:
            return
        if not self._answered:
            if not self._asked:
                await self._receive()
            await self._start({"type": "lifespan.startup.complete"})
            if self._failed:
                return
            if self._lacks_lifespan:
                self._runtime.warn(self._lacks_lifespan)
        if not self._told_to_stop:
            await self._receive()
            await self._runtime.stop()
            await self._send({"type": "lifespan.shutdown.complete"})

    async def _receive_for_app(self) -> Message:
        if self._failed:
            return {"type": "lifespan.shutdown"}
        message = await self._receive()
        self._asked = True
        if message["type"] == "lifespan.shutdown":
            self._told_to_stop = True
            await self._runtime.stop()
        return message

    async def _send_for_app(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            await self._start(message)
        elif not self._failed:
            if message["type"] == "lifespan.startup.failed":
                self._answered = self._failed = True
            await self._send(message)

    async def _start(self, message: Message) -> None:
        """Start the queue, then tell the server that all is up; or that it is not, and let the application close."""
        self._answered = True
        state: dict[str, Any] | None = self._scope.get("state")
        try:
            # Called from within the application's start-up, so the context holds the variables that it has set.
            await self._runtime.start(state, copy_context())
        except Exception as error:
            self._failed = True
            await self._send({"type": "lifespan.startup.failed", "message": f"queue_middleware: {error}"})
            return
        await self._send(message)
