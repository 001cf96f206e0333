"""The service of the acceptance tests, killed before each response to a request with the header `X-Kill`, and started again.

It is started by a fork, because the tests kill it some hundreds of times. The parent keeps the listening socket, so a client
that connects meanwhile waits.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from .service import app


async def killed(scope: Scope, receive: Receive, send: Send) -> None:
    """Call the service. What it sends first, for a submission, it sends after the commit."""

    async def kill(message: Message) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    is_killed = scope["type"] == "http" and any(name == b"x-kill" for name, _ in scope["headers"])
    await app(scope, receive, kill if is_killed else send)


def main(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            pid = os.fork()
            if pid == 0:
                uvicorn.Server(uvicorn.Config(killed, log_level="warning")).run([listener])
                os._exit(0)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
