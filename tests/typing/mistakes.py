"""Code that a type checker has to reject; `warn_unused_ignores` reports an error that is missing."""

from fastapi import FastAPI

from queue_middleware import QueueMiddleware

app = FastAPI()
app = QueueMiddleware(app)  # type: ignore[assignment]  # the class of a variable cannot change: use attach(), or another name

QueueMiddleware("main:app")  # type: ignore[type-var]
QueueMiddleware(FastAPI(), concurency=2)  # type: ignore[call-arg]
QueueMiddleware(FastAPI(), on_crash="perhaps")  # type: ignore[arg-type]
QueueMiddleware.attach(FastAPI(), concurrency="two")  # type: ignore[arg-type]
