"""The HTTP interface: thin endpoints between ASGI and the runtime.

May import: `runtime` and everything below it.
Begin with `router`, which decides which group of endpoints answers a request.
"""
