"""The HTTP interface: thin endpoints between ASGI and the runtime.

May import: `runtime` and everything below it.
Begin with `router`, which finds the group of endpoints that serves a request.
"""
